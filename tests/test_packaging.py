"""What an installation promises: a light import, and a compiler without torch.

The wheel itself: tests/test_wheel.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "numpy", "tokenizers", "lark", "networkx", "jinja2")
# What `pip install sglc` without extras does not bring.
OPTIONAL = ("torch", "transformers", "tokenizers", "safetensors", "gguf", "llguidance", "tqdm",
            "pydantic", "triton")

COMPILE = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
import sglc as sgl
from sglc.tokens.bytes import ByteTokenizer

@sgl.program
def tool_use(s, question):
    s += sgl.system("You answer with a tool.")
    s += sgl.user(f"To answer this question: {{question}}. ")
    s += sgl.assistant("I need a " + sgl.gen("tool", choices=["calculator", "search engine"]))
    if s["tool"] == "calculator":
        s += sgl.gen("expression", regex=r"[0-9+*/ -]+", max_tokens=16)
    forks = s.fork(2)
    for i, f in enumerate(forks):
        f += f"Tip {{i}}: " + sgl.gen("tip", stop="\\n")
    s += forks[0]["tip"] + sgl.gen("end", dtype=int)

compiled = tool_use.compile()
assert compiled.graph_breaks == 0
text = sgl.ir.print(compiled.stages["plan"])
assert sgl.ir.parse(text) == compiled.stages["plan"]
sgl.ir.verify(compiled.stages["kv"])
constraint = sgl.grammar.compile(regex="[a-c]+", tokenizer=ByteTokenizer())
assert constraint.start() is not None
assert not [m for m in {OPTIONAL} if m in sys.modules]
"""


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], str]:
    """Runs code in a process of its own, from a file (programs need their source)."""

    def run(code: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(code)
        done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True,
                              text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_import_is_light(python: Callable[[str], str]) -> None:
    out = python(
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "import sglc\n"
        "print(time.perf_counter() - start)\n"
        f"print([m for m in {HEAVY} if m in sys.modules])\n")
    seconds, loaded = out.splitlines()
    assert loaded == "[]"
    assert float(seconds) < 1


def test_every_public_name_exists(python: Callable[[str], str]) -> None:
    python("import sglc\nfor name in sglc.__all__: getattr(sglc, name)\n"
           "missing = set(sglc.__all__) - set(dir(sglc))\nassert not missing, missing\n")


def test_a_program_compiles_without_torch(python: Callable[[str], str]) -> None:
    python(COMPILE)


def test_an_engine_without_torch_says_what_to_install(python: Callable[[str], str]) -> None:
    out = python(COMPILE + "try:\n    sgl.Engine()\nexcept sgl.SglcError as e:\n    print(e)\n")
    assert "SGLC504" in out and "sglc[local]" in out


def test_version_is_one(python: Callable[[str], str]) -> None:
    version = python("import sglc; print(sglc.__version__)").strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert 'path = "sglc/__init__.py"' in (ROOT / "pyproject.toml").read_text()
