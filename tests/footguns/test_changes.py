"""What may change around a program: names and objects from outside, what it changes itself."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest

import sglc as sgl
from tests.footguns.both_modes import outcome, same

G = "g"
NUMBERS = [1, 2]
CHOICES = ["yes", "no"]
TABLE = {"a": "x", "b": ["y"]}


def test_globals_are_guarded(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += G + str(len(NUMBERS)) + TABLE["a"] + "".join(TABLE["b"])
        s += sgl.select("c", choices=CHOICES)

    def texts() -> list[str]:
        return [p.run(backend=model, seed=1, mode=m).text() for m in ("eager", "compiled")]

    one = texts()
    assert one[0] == one[1]
    monkeypatch.setitem(globals(), "G", "changed")
    NUMBERS.append(3)
    TABLE["b"].append("z")  # type: ignore[attr-defined]
    CHOICES.append("maybe")
    try:
        two = texts()
    finally:
        NUMBERS.pop()
        TABLE["b"].pop()  # type: ignore[attr-defined]
        CHOICES.pop()
    assert two[0] == two[1] != one[0]
    monkeypatch.undo()
    assert texts() == one
    assert p.compile().graph_breaks == 0


def test_closures_and_attributes_are_guarded(model: Any) -> None:
    class Config:
        word = "class"

        def __init__(self) -> None:
            self.text = "one"
            self.items = ["a"]

    config = Config()
    cell = "cell"

    @sgl.program
    def p(s: Any) -> None:
        s += config.text + "".join(config.items) + cell + sgl.gen("a", max_tokens=2)

    def texts() -> list[str]:
        return [p.run(backend=model, seed=1, mode=m).text() for m in ("eager", "compiled")]

    one = texts()
    config.text = "two"
    two = texts()
    config.items.append("b")
    three = texts()
    cell = "other"
    four = texts()
    config = Config()
    five = texts()
    for pair in (one, two, three, four, five):
        assert pair[0] == pair[1]
    assert len({one[0], two[0], three[0], four[0]}) == 4 and five[0].startswith("oneaother")


def test_changes_outside_break(model: Any) -> None:
    seen: dict[str, Any] = {}
    log: list[Any] = []

    @sgl.program
    def stores(s: Any, q: Any) -> None:
        s += q
        seen[q] = 1
        s += str(len(seen))

    @sgl.program
    def appends(s: Any, q: Any) -> None:
        s += q
        log.append(q)
        s += str(len(log))

    @sgl.program
    def shuffles(s: Any, docs: Any) -> None:
        random.Random(4).shuffle(docs)
        s += "".join(docs)

    @sgl.program
    def adds(s: Any, docs: Any) -> None:
        docs += ["x"]
        s += "".join(docs)

    for program in (stores, appends):
        seen.clear()
        log.clear()
        with warnings.catch_warnings(record=True):
            a = program.run("q", backend=model).text()
        assert a == "q1" and len(seen) + len(log) == 1
        assert program.compile("q").graph_breaks == 1  # what was changed is read at run time
        assert len(seen) + len(log) == 1  # compiling changed nothing
    for program in (shuffles, adds):
        docs, again = list("abcdef"), list("abcdef")
        with warnings.catch_warnings(record=True):
            one = program.run(docs, backend=model).text()
        two = program.run(again, backend=model, mode="eager").text()
        assert one == two and docs == again


def test_containers_made_inside_are_fine(model: Any) -> None:
    @sgl.program
    def p(s: Any, items: Any) -> Any:
        out, table = [], {}
        for i, x in enumerate(items):
            out.append(x + "!")
            table[i] = x
        copy = list(items)
        copy.append("new")
        copy[0] = "first"
        s += "".join(out) + table[0] + "".join(copy) + sgl.gen("a", max_tokens=2)
        table["a"] = s["a"]
        return out, table["a"], {"k": s["a"]}

    same(p, model, (["a", "b"],), (["c"],), whole=True)


LOG: list[Any] = []


class Agent:
    count = 0

    def __init__(self) -> None:
        self.n = 0
        self.memory: list[Any] = []

    def act(self, x: Any) -> dict[str, Any]:
        LOG.append(("act", x))
        self.n += 1
        return {"n": self.n, "text": f"{x}-{self.n}", "items": [x, "b"]}

    def prompt(self, s: Any, x: Any) -> None:
        s += f"agent {self.n} says " + x + sgl.gen("p", max_tokens=2)


def test_objects_that_change(model: Any) -> None:
    agent = Agent()

    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += q
        agent.prompt(s, q)
        r = agent.act(s["p"])
        agent.prompt(s, r["text"])
        agent.n += 10
        agent.memory.append(r["n"])
        Agent.count += 1
        s += f"{agent.n} {len(agent.memory)} {agent.memory[-1]} {Agent.count}"
        for item in r["items"]:
            s += item + sgl.gen("i", max_tokens=1)
        if r["n"] > 1:
            s += "more"
        return r["items"], agent.n

    runs: dict[str, list[Any]] = {}
    for mode in ("eager", "compiled"):
        LOG.clear()
        agent.__init__()  # type: ignore[misc]
        Agent.count = 0
        got = [outcome(p.run(q, backend=model, mode=mode, seed=5)) for q in ("x", "y", "x")]
        runs[mode] = [got, list(LOG), agent.n, list(agent.memory), Agent.count]
    assert runs["compiled"] == runs["eager"]


GROWING: list[str] = []


def test_guesses_that_fail(model: Any) -> None:
    def grow(x: Any) -> None:
        GROWING.append(x)

    @sgl.program
    def hidden(s: Any, docs: Any) -> None:
        s += "".join(GROWING) + docs[0] + sgl.gen("a", max_tokens=3)
        grow("h")
        docs.reverse()
        s += "".join(GROWING) + docs[0] + sgl.gen("b", max_tokens=3, temperature=1.0)

    @sgl.program
    def pops(s: Any, docs: Any) -> Any:
        s += "x"
        while docs:
            d = docs.pop()
            s += d + sgl.gen("a", max_tokens=2)
        return len(docs)

    for program in (hidden, pops):
        runs = []
        for mode in ("eager", "compiled", "compiled"):
            GROWING.clear()
            docs = ["a", "b", "c"]
            runs.append((outcome(program.run(docs, backend=model, mode=mode, seed=1)), docs))
        assert runs[0] == runs[1] == runs[2]
