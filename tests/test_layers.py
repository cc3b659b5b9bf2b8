"""Imports go downward only: a module may import its own layer and the ones below.

Read from the source, function-level imports included; blocks under `if TYPE_CHECKING:` apart.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sglc"

# First is lowest.  A layer is the first name after `sglc`.
LAYERS = (
    ("errors", "config", "collector", "progress"),
    ("ir", "tokens", "kernels"),
    ("grammar",),
    ("passes", "plan"),
    ("runtime",),
    ("backends",),
    ("trace",),
    ("viz",),
    ("lang",),
    ("serve", "explain", "workloads", "commands", "cli", "demo", "launch_server"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

# The tracer stands in for the prompt state, so it has to know what can be appended to one.
ALLOWED = {("trace", f"sglc.lang.{name}")
           for name in ("expressions", "forking", "prompt_surface")}


def imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module or module.name) of every import that can run."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        children: list[ast.AST] = [*node.orelse]
    else:
        children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative import"
        for alias in node.names:
            yield node.lineno, f"{node.module}.{alias.name}"
    for child in children:
        yield from imports(child)


def layer(name: str) -> str | None:
    """The layer of a dotted name; None for what is outside sglc, and for `sglc` alone."""
    parts = name.split(".")
    return parts[1] if parts[0] == "sglc" and len(parts) > 1 else None


def upward(module: str, source: str) -> list[str]:
    """The imports of `module` (dotted) that break the rule, as `line: name`."""
    own = layer(module)
    assert own is not None
    found = []
    for line, name in imports(ast.parse(source)):
        target = layer(name)
        if name == "sglc" or target is None or target.startswith("__"):
            if name.split(".")[0] == "sglc" and RANK[own] < RANK["cli"]:
                found.append(f"{line}: {name} (the public names are above everything)")
            continue
        assert target in RANK, f"{module}:{line}: no layer is known for {name}"
        exempt = any(own == who and (name + ".").startswith(what + ".") for who, what in ALLOWED)
        if RANK[target] > RANK[own] and not exempt:
            found.append(f"{line}: {name}")
    return found


MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_upward_import(path: Path) -> None:
    assert upward(dotted(path), path.read_text()) == []


def test_every_part_has_a_layer() -> None:
    parts = {p.stem if p.is_file() else p.name for p in ROOT.iterdir()
             if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    assert parts <= set(RANK), "give the new part a place in LAYERS"


@pytest.mark.parametrize(("module", "source", "bad"), [
    ("sglc.ir.x", "import sglc.passes.fold", True),
    ("sglc.ir.x", "from sglc.passes import fold", True),
    ("sglc.ir.x", "def f():\n    from sglc.runtime.engine import EngineCore", True),
    ("sglc.ir.x", "from sglc import passes", True),
    ("sglc.ir.x", "import sglc", True),
    ("sglc.ir.x", "from sglc.tokens import prompt", False),
    ("sglc.ir.x", "from typing import TYPE_CHECKING\n"
                  "if TYPE_CHECKING:\n    import sglc.lang.program", False),
    ("sglc.ir.x", "if TYPE_CHECKING:\n    import re\nelse:\n    import sglc.lang.program", True),
    ("sglc.trace.x", "from sglc.lang.expressions import Gen", False),
    ("sglc.trace.x", "from sglc.lang import expressions", False),
    ("sglc.trace.x", "from sglc.lang.program import Program", True),
    ("sglc.grammar.x", "from sglc.lang.expressions import Gen", True),
    ("sglc.cli", "import sglc", False),
])
def test_the_rule_itself(module: str, source: str, bad: bool) -> None:
    assert bool(upward(module, source)) is bad
