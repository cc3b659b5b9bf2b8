"""A program for each construct that SGLang's own tracer got wrong: here compiled is eager.

`WRONG_BEFORE` has one entry for each row of the list of its limits; `EASILY_WRONG` has further
constructs that a tracer with symbolic values gets wrong unless it takes care.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import sglc as sgl

CALLS: list[Any] = []
LOG: dict[str, Any] = {}
TABLE = {"yes": "sure", "no": "never"}


def host(*values: Any) -> str:
    CALLS.append(values)
    return f"<{len(str(values))}>"


class Counter:
    n = 0


COUNTER = Counter()


@pytest.fixture(autouse=True)
def clean() -> None:
    reset()


def reset() -> None:
    CALLS.clear()
    LOG.clear()
    COUNTER.n = 0


def run(program: Any, model: Any, mode: str, arguments: tuple[Any, ...]) -> Any:
    reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = program.run(*arguments, backend=model, mode=mode, seed=4, max_new_tokens=3)
        error = state.error()
    if error is not None:
        return type(error), list(CALLS)
    return (state.text(), state.token_ids(), state.messages(), state.ret_value,
            {n: state[n] for n in state.variable_names()}, list(CALLS), dict(LOG), COUNTER.n)


def check(fn: Any, model: Any, rows: list[tuple[Any, ...]], whole: bool = True) -> None:
    program = sgl.program(fn)
    reset()
    for row in rows:
        compiled = program.compile(*row)
        assert CALLS == [] and LOG == {} and COUNTER.n == 0, "compiling ran a part of the program"
        assert not whole or compiled.graph_breaks == 0, compiled.breaks
    for row in rows:
        eager = run(program, model, "eager", row)
        assert run(program, model, "compiled", row) == eager
        assert run(program, model, "compiled", row) == eager


Entry = tuple[Callable[..., Any], list[tuple[Any, ...]], bool]
WRONG_BEFORE: dict[str, Entry] = {}
EASILY_WRONG: dict[str, Entry] = {}


def row(name: str, *rows: tuple[Any, ...], whole: bool = True,
        table: dict[str, Entry] = WRONG_BEFORE) -> Callable[[Any], Any]:
    def add(fn: Any) -> Any:
        assert name not in table
        table[name] = (fn, list(rows) or [()], whole)
        return fn

    return add


# -- the rows ------------------------------------------------------------------------------
@row("if q == x on an argument", ("x",), ("y",))
def _(s: Any, q: str) -> None:
    s += "X" if q == "x" else "other"
    if q == "x":
        s += "equal"
    s += sgl.gen("a")


@row("if on a generated choice", *((c,) for c in "abcdef"))
def _(s: Any, q: str) -> None:
    s += q + sgl.select("tool", ["calc", "search"])
    if s["tool"] == "calc":
        s += "1" + sgl.gen("a")
    elif s["tool"] == "search":
        s += "2" + sgl.gen("b")


@row("if q", ("x",), ("",))
def _(s: Any, q: str) -> None:
    if q:
        s += "some "
    s += "x" + sgl.gen("a")


@row("str(q)", ("x",), (5,), (None,))
def _(s: Any, q: Any) -> None:
    s += str(q) + sgl.gen("a")


@row("f-string with an argument", ("x", 5), ("", -1))
def _(s: Any, q: str, n: int) -> None:
    s += f"<{q!r:>6}|{n:+04d}>" + sgl.gen("a")


@row("text methods on a variable", ("x",))
def _(s: Any, q: str) -> None:
    s += q + sgl.gen("a")
    s += f"[{s['a']}]" + str(s["a"]) + s["a"].strip().upper() + s["a"].replace("a", "b")


@row("len, range, for, index of arguments", (["a", "b"], 2), (["c"], 0), (["d", "e", "f"], 1))
def _(s: Any, docs: list[str], n: int) -> None:
    s += f"{len(docs)}" + docs[0] + docs[-1]
    for d in docs:
        s += d
    for i in range(n):
        s += str(i) + sgl.gen("a")


@row("arguments as parameters", (["x", "y"], "e", 2, "[ab]+"), (["p", "q"], ["a"], 1, "[0-9]"))
def _(s: Any, choices: Any, stop: Any, n: int, regex: str) -> None:
    s += "x" + sgl.gen("a", stop=stop, max_tokens=n) + sgl.gen("b", regex=regex, max_tokens=n)
    s += sgl.select("c", choices) + sgl.gen("d", choices=choices)


@row("the same argument twice", ("x",), ("yy",))
def _(s: Any, q: str) -> None:
    s += q + q + sgl.gen("a") + q


@row("role text", ("x",))
def _(s: Any, q: str) -> None:
    s += sgl.system("be brief") + sgl.user(q) + sgl.assistant(sgl.gen("a")) + sgl.user("more")
    s += sgl.assistant(sgl.gen("b"))


@row("fork", ("x",))
def _(s: Any, q: str) -> None:
    s += q
    forks = s.fork(2)
    for i, f in enumerate(forks):
        f += f"tip {i}" + sgl.gen("tip")
    s += forks[0]["tip"] + forks[1]["tip"] + sgl.gen("a")


@row("join, copy, var_scope, roles, text, set, sync", ("x",))
def _(s: Any, q: str) -> None:
    s += q
    for mode in ("gather_variable", "concate_and_append"):
        forks = s.fork(2)
        forks += sgl.gen(mode)
        forks.join(mode)
    with s.copy() as c:
        c += sgl.gen("copied")
    with s.var_scope("scope"), s.user():
        s += "u" + sgl.gen("a")
    s["set"] = s["a"] + "!"
    s.sync()
    s += s.text()[-3:] + s["set"] + s["copied"][0]


@sgl.program
def child(s: Any, q: str) -> None:
    s += "child" + q + sgl.gen("a", max_tokens=2)


@row("a child's variable of the root's name", ("x",))
def _(s: Any, q: str) -> None:
    s += "root" + sgl.gen("a")
    c = child(q)
    s += " | " + c["a"] + " | " + s["a"]


@row("a Python call on a generated value", ("x",), ("y",))
def _(s: Any, q: str) -> None:
    s += q + sgl.gen("a")
    s += host(s["a"]) + sgl.gen("b")


@row("a child state whose result is unused", ("x",))
def _(s: Any, q: str) -> None:
    unused = child(q)  # noqa: F841
    host("after")
    s += q + sgl.gen("a")


@row("side effects while tracing", ("x",))
def _(s: Any, q: str) -> None:
    host(q)
    LOG[q] = host(q, q)
    s += q + sgl.gen("a")
    host("end")


@pytest.mark.parametrize("name", WRONG_BEFORE)
def test_what_the_ancestor_got_wrong(name: str, model: Any) -> None:
    check(WRONG_BEFORE[name][0], model, *WRONG_BEFORE[name][1:])


def test_images_are_refused_in_both_modes(model: Any) -> None:
    def p(s: Any) -> None:
        s += "x" + sgl.video("a.mp4", 3)

    program = sgl.program(p)
    for mode in ("eager", "compiled"):
        with pytest.raises(sgl.SglcError, match="SGLC008"):
            program.run(backend=model, mode=mode)


def test_graphs_can_be_written_and_read_back(model: Any) -> None:
    """The ancestor had no serialization, no dump format and no passes."""
    from sglc.ir.clone import explain_difference
    from sglc.ir.json_form import from_json, to_json
    from sglc.ir.parser import parse
    from sglc.ir.printer import print_module

    for name, (fn, rows, _) in WRONG_BEFORE.items():
        for module in sgl.program(fn).compile(*rows[0]).stages.values():
            assert explain_difference(parse(print_module(module)), module) is None, name
            assert explain_difference(from_json(to_json(module)), module) is None, name


# -- further constructs ----------------------------------------------------------------------
def easily_wrong(name: str, *rows: tuple[Any, ...], whole: bool = False) -> Callable[[Any], Any]:
    return row(name, *rows, whole=whole, table=EASILY_WRONG)


@easily_wrong("is None", (None,), ("x",))
def _(s: Any, q: Any) -> None:
    s += "none" if q is None else "some"
    s += sgl.gen("a") + ("" if s.get_meta_info("nothing") is None else "?")
    if s["a"] is None or host(s["a"]) is not None:
        s += "!"


@easily_wrong("a dict lookup by a generated key", *((c,) for c in "abcd"))
def _(s: Any, q: str) -> None:
    s += q + sgl.select("c", ["yes", "no"])
    s += TABLE[s["c"]] + {"yes": "1", "no": "2"}[s["c"]] + TABLE.get(s["c"], "?")


@easily_wrong("obj.n += 1", ("x",))
def _(s: Any, q: str) -> None:
    COUNTER.n += 1
    s += q + sgl.gen("a")
    COUNTER.n += len(s["a"])
    s += str(COUNTER.n)


@easily_wrong("log[k] = v", ("x",))
def _(s: Any, q: str) -> None:
    s += q + sgl.gen("a")
    LOG[q] = s["a"]
    LOG[s["a"]] = q
    s += str(len(LOG)) + LOG[q]


@easily_wrong("with", ("x",))
def _(s: Any, q: str) -> None:
    with s.user():
        s += q
    with s.assistant(), s.var_scope("said"):
        s += sgl.gen("a")
    s += s["said"]


@easily_wrong("next(it)", (["a", "b", "c"],))
def _(s: Any, items: list[str]) -> None:
    it = iter(items)
    s += next(it) + sgl.gen("a") + next(it)
    letters = iter(s["a"] + "xyz")
    s += next(letters) + next(letters) + next(it, "end") + next(it, "end")


@easily_wrong("isinstance", ("x",), (5,), (["x"],))
def _(s: Any, q: Any) -> None:
    s += "text" if isinstance(q, str) else "number" if isinstance(q, int) else "other"
    s += sgl.gen("a")
    if isinstance(s["a"], str) and not isinstance(s["a"], int):
        s += "!"


TRIED: dict[str, Callable[[Any, str], Any]] = {
    "a host call": lambda s, q: host(q),
    "a read": lambda s, q: s["a"],
    "a missing variable": lambda s, q: s["nothing"],
    "a conversion": lambda s, q: str(int(s["a"])),
    "an append": lambda s, q: s.append(q) and "",
    "a gen": lambda s, q: s.append(sgl.gen("b", max_tokens=2)) and "",
    "a select": lambda s, q: s.append(sgl.select("c", ["x", "y"])) and "",
    "a bad select": lambda s, q: s.append(sgl.select("c", [])) and "",
    "a fork": lambda s, q: s.fork(2)[0].append(sgl.gen("d", max_tokens=1))["d"],
    "a bad fork": lambda s, q: s.fork(0) and "",
    "text()": lambda s, q: s.text(),
    "a role": lambda s, q: s.append(sgl.user(q)) and "",
    "a nested role": lambda s, q: s.append(sgl.user(sgl.user(q))) and "",
    "a nested program": lambda s, q: child(q)["a"],
    "an item": lambda s, q: s["a"][99],
    "a key": lambda s, q: TABLE[q],
    "a format": lambda s, q: f"{s['a']:>9d}",
    "a division": lambda s, q: str(1 // (len(q) - 1)),
    "a set": lambda s, q: s.set_var("z", q) or "",
}


@pytest.mark.parametrize("what", TRIED)
def test_try_around(what: str, model: Any) -> None:
    def p(s: Any, q: str, what: str) -> str:
        s += "x" + sgl.gen("a", max_tokens=2)
        tried = "no"
        try:
            tried = TRIED[what](s, q)
            s += tried
        except (ValueError, KeyError, IndexError, ZeroDivisionError) as e:
            s += "failed " + type(e).__name__
        finally:
            host("finally")
        s += sgl.gen("end", max_tokens=2)
        return tried

    check(p, model, [("q", what), ("qq", what)], whole=False)


@pytest.mark.parametrize("name", EASILY_WRONG)
def test_what_is_easily_wrong(name: str, model: Any) -> None:
    check(EASILY_WRONG[name][0], model, *EASILY_WRONG[name][1:])


GREETING = "hi"


def test_an_edit_outside_traces_again(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A global, a closure cell, a default and an attribute, each changed between two runs."""
    def helper(t: Any, word: str = "h1") -> None:
        t += word

    cell = "c1"
    holder = Counter()
    holder.n = 1

    def p(s: Any, word: str = "d1") -> None:
        s += GREETING + cell + word + str(holder.n)
        helper(s)
        s += sgl.gen("a")

    program = sgl.program(p)

    def text() -> str:
        texts = {str(program.run(backend=model, seed=1, max_new_tokens=1, mode=mode).text()[:10])
                 for mode in ("eager", "compiled", "compiled")}
        assert len(texts) == 1
        return texts.pop()

    assert text().startswith("hic1d11h1")
    monkeypatch.setitem(globals(), "GREETING", "yo")
    assert text().startswith("yoc1d11h1")
    cell = "c2"
    assert text().startswith("yoc2d11h1")
    holder.n = 2
    assert text().startswith("yoc2d12h1")
    helper.__defaults__ = ("h2",)
    assert text().startswith("yoc2d12h2")
    p.__defaults__ = ("d2",)
    assert text().startswith("yoc2d22h2")


def pieces(text: str) -> list[str]:
    CALLS.append(text)
    return [text[:2], "."]


@easily_wrong("a test that decides nothing, before a break", ("x",))
def _(s: Any, q: str) -> None:
    s += q + sgl.gen("a")
    if s["a"] == "a":
        pass
    if s.text() == "x":
        q = "never"
    for piece in pieces(q):
        s += piece


@easily_wrong("a test of a constant, before a break", ("x",))
def _(s: Any, q: str) -> None:
    s += "x"
    n = 1
    if s.text() == "x":
        n = 2
    for piece in pieces(q):
        s += piece * n
    s += sgl.gen("a")


@easily_wrong("a loop of many rounds behind a break", ("x",))
def _(s: Any, q: str) -> int:
    s += q
    for piece in pieces(q):
        s += piece
    n = 0
    while len(host(n)) < 9 and n < 40:
        n += 1
        s += sgl.gen("a", max_tokens=1)
    return n
