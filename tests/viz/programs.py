"""Programs that the viewer is tried on, and their subjects."""

from __future__ import annotations

from random import Random
from typing import Any

import sglc as sgl
from sglc.ir.module import Module, Value
from sglc.lang.compiled import Compiled
from tests.corpus import agents, chat, choosing, composition, documents, reasoning, tools

HOSTILE = ("</script></svg></style><script>document.title='owned';alert(1)</script>"
           "<img src=x onerror=\"alert(2)\"> \u202eevil\u2066 \x00\x1b\ud800\ufffe &lt;b&gt; ]]>"
           " javascript:alert(3) <!-- ' \" -->")


@sgl.program
def hostile(s: Any, text: str) -> None:
    s += sgl.system(HOSTILE) + sgl.user(text + HOSTILE)
    s += sgl.assistant(sgl.gen("answer<script>alert(4)</script>", max_tokens=8, stop=HOSTILE))
    s += HOSTILE * 200
    s += sgl.select("tool", ["a", HOSTILE, "</script>"])
    if s["tool"] == "a":
        s += sgl.gen("number", regex="(</script>|[0-9]+)x")


@sgl.program
def shared(s: Any, q: str) -> None:
    """Three calls read its first text, one of them behind an argument."""
    s += "You are brief. "
    a, b = s.fork(2)
    a += "One: " + sgl.gen("one", max_tokens=4)
    b += "Two: " + q + sgl.gen("two", max_tokens=6)
    s += a["one"] + b["two"] + sgl.gen("three", max_tokens=9)


@sgl.program
def essays(s: Any, essay: str) -> None:
    """48 forks alike."""
    s += sgl.system("You judge essays.") + sgl.user("Essay: " + essay)
    forks = s.fork(48)
    for i, f in enumerate(forks):
        f += sgl.user(f"Aspect {i}?") + sgl.assistant(sgl.gen("judgment", max_tokens=8))
    s += sgl.user(" ".join(f["judgment"] for f in forks))
    s += sgl.assistant(sgl.gen("grade", regex=r"Grade: (A|B|C), because [a-z ]{5,9}\."))


@sgl.program
def thousand(s: Any, q: str) -> None:
    """A thousand boxes and one."""
    s += "Q: " + q
    for i in range(250):
        s += f"Step {i}: " + sgl.gen(f"a{i}", max_tokens=8)
        side = s.fork(1)[0]
        side += "Side " + sgl.gen("b", max_tokens=4)
        s += "ok " + side["b"]


def corpus() -> dict[str, Compiled]:
    """Ten programs of the corpus, compiled for arguments of their own, and those above."""
    found: dict[str, Compiled] = {}
    for module in (agents, chat, choosing, composition, documents, reasoning, tools):
        for spec in module.SPECS[:2]:
            arguments = spec.arguments(Random(spec.program.name))
            compiled = spec.program.compile(**arguments)
            if compiled.stages and len(found) < 9:
                found[spec.program.name] = compiled
    return {**found, "thousand": thousand.compile(), "hostile": hostile.compile(),
            "essays": essays.compile()}


def operand_uses(module: Module) -> int:
    """How many operands of a module are values."""
    return sum(isinstance(o, Value) for op in module.walk() for o in op.operands)


def calls(module: Module) -> dict[str, int]:
    """How many ops there are of each kind that the graph shows by a shape."""
    kinds = {"prompt.gen": "gen", "kv.decode": "gen", "prompt.select": "select",
             "kv.score": "select", "prompt.if": "branch", "prompt.switch": "branch",
             "prompt.host": "host"}
    out = dict.fromkeys(kinds.values(), 0)
    for op in module.walk():
        if op.name in kinds:
            out[kinds[op.name]] += 1
    return out
