"""Python's statements and builtins around prompts: each is eager's, with the same calls.

`whole` says whether the program is one graph; where it is not, the code of the break is given.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import sglc as sgl

CALLS: list[Any] = []
COUNT = 0
SEEN: dict[str, Any] = {}
TABLE = {"x": "ex", "y": "why", "z": ["zed"]}


class Box:
    """An object with a counter."""

    n = 0


BOX = Box()


def log(*args: Any) -> int:
    CALLS.append(("log", *copy.deepcopy(args)))
    return len(CALLS)


def num(text: str) -> int:
    CALLS.append(("num", text))
    return sum(map(ord, text)) % 4


def find(text: str) -> list[str]:
    CALLS.append(("find", text))
    return [text[:1], text[1:2], "z"][:1 + num(text) % 3]


def keep(value: Any) -> Any:
    """Keeps what it is given, and changes it."""
    CALLS.append(("keep", copy.deepcopy(value)))
    SEEN["kept"] = value
    if isinstance(value, list):
        value.append("kept")
    return value


def outcome(state: Any) -> Any:
    error = state.error()
    left = {n: state[n] for n in state.variable_names()}
    if error is not None:
        return type(error), str(error), left
    return state.text(), state.token_ids(), state.messages(), state.ret_value, left


ROWS = ("a", "b", "cd", "efg", "h")


def check(program: Any, model: Any, breaks: str | None = None,
          shared: bool = False) -> list[Any]:
    """Both modes do the same, in runs and (where rows share nothing) in a batch; breaks: the code
    of the first break."""
    global COUNT
    seen: dict[str, Any] = {}
    for mode in ("eager", "compiled", "compiled again"):
        CALLS.clear()
        SEEN.clear()
        COUNT, BOX.n = 0, 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if breaks else "error")
            states = []
            for i, row in enumerate(ROWS):
                try:
                    state = program.run(row, backend=model, mode=mode.split()[0], seed=i,
                                        max_new_tokens=6)
                    states.append(outcome(state))
                except Exception as e:
                    states.append((type(e), str(e)))
            rows = [] if shared else program.run_batch(
                [(r,) for r in ROWS], backend=model, seed=3, mode=mode.split()[0],
                max_new_tokens=6)
            states += [outcome(s) for s in rows]
        seen[mode] = (states, sorted(map(repr, CALLS)), COUNT, BOX.n, copy.deepcopy(SEEN))
    for mode in ("compiled", "compiled again"):
        for what, got, wanted in zip(("states", "calls", "COUNT", "BOX", "SEEN"), seen[mode],
                                     seen["eager"], strict=True):
            if what == "SEEN":
                got, wanted = ({k: repr(v) for k, v in x.items() if k != "f"}
                               for x in (got, wanted))
            assert got == wanted, f"{what}, {mode}"
    codes = [d.code for d in program.compile("q").breaks]
    assert codes[:1] == ([] if breaks is None else [breaks])
    model.core.check()
    return seen["eager"][0]


PROGRAMS: list[tuple[Callable[..., Any], str | None, bool]] = []


def program(code: str | None = None, shared: bool = False) -> Callable[..., Any]:
    def add(fn: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS.append((fn, code, shared))
        return fn

    return add


whole, shared, breaks = program(), program(shared=True), program


# -- names --------------------------------------------------------------------------------------
@whole
def walrus(s: Any, q: str) -> Any:
    s += q + sgl.gen("a", max_tokens=4, ignore_eos=True)
    if (n := num(s["a"])) > 1 and (m := n * 2) != 6:
        s += f"{n}{m}"
    parts = [y for x in ("a", "b") if (y := x + q)]
    while (k := num(str(len(parts)))) and len(parts) < 4:
        parts.append(f"{k}{y}")
    s += "".join(parts) + sgl.gen("b", max_tokens=2)
    return n


@whole
def walrus_in_an_arm(s: Any, q: str) -> None:
    s += q + sgl.select("c", ["x", "y"])
    if s["c"] == "x":
        s += (t := q + "!") + t
    else:
        t = "none"
    s += t + sgl.gen("a", max_tokens=2)


@shared
def deleting(s: Any, q: str) -> None:
    table = {"a": q, "b": 2}
    items = [1, 2, 3]
    x = q
    del table["a"], items[1:], x
    s += q + f"{table}{items}" + sgl.gen("a", max_tokens=3)
    found = find(s["a"])
    del found[0]
    SEEN[q] = 1
    del SEEN[q]
    s += str(found) + sgl.gen("b", max_tokens=2)
    BOX.n = 5
    BOX.extra = 1
    del BOX.extra


@shared
def global_counter(s: Any, q: str) -> None:
    global COUNT
    COUNT += 1
    s += q + f"{COUNT}" + sgl.gen("a", max_tokens=2)
    log(s["a"])
    COUNT = COUNT + 1
    s += str(COUNT) + sgl.gen("b", max_tokens=2)


def bump() -> None:
    global COUNT
    COUNT += 1


@shared
def global_that_a_call_changes(s: Any, q: str) -> None:
    s += q + str(COUNT)
    bump()
    s += str(COUNT) + sgl.gen("a", max_tokens=2)
    bump()
    s += str(COUNT)


@shared
def attribute_counter(s: Any, q: str) -> None:
    BOX.n += 1
    s += q + str(BOX.n) if False else q
    s += sgl.gen("a", max_tokens=2)
    SEEN.setdefault(q, 0)
    SEEN[q] += len(s["a"])


@whole
def nested_nonlocal(s: Any, q: str) -> None:
    n = 0

    def up(text: str) -> str:
        nonlocal n
        n += 1
        return f"{n}{text}"

    s += up(q) + sgl.select("c", ["x", "y"])
    if s["c"] == "x":
        s += up("then")
    else:
        s += "else"
    s += up("end") + str(n) + sgl.gen("a", max_tokens=2)


@whole
def many_targets(s: Any, q: str) -> None:
    a = b = q
    c, (d, *e) = 1, q + "xy"
    table: dict[str, Any] = {}
    table["k"], table["l"] = a, b
    s += f"{a}{b}{c}{d}{e}{table}" + sgl.gen("g", max_tokens=4, ignore_eos=True)
    head, _, tail = s["g"].partition("e")
    first, *rest = s["g"]
    s += head + tail + first + str(rest) + sgl.gen("h", max_tokens=2)


@whole
def unpacking_that_fails(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=3)
    x, y = find(s["a"])
    s += x + y + sgl.gen("b", max_tokens=2)


# -- errors -------------------------------------------------------------------------------------
@whole
def raising(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=3)
    if num(s["a"]) % 2:
        log("before")
        raise ValueError(f"bad {s['a']!r}") from KeyError(q)
    s += "fine" + sgl.gen("b", max_tokens=2)


@whole
def raising_by_argument(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=3)
    if len(q) > 1:
        raise RuntimeError
    s += "fine" + sgl.gen("b", max_tokens=2)


# -- imports ------------------------------------------------------------------------------------
@whole
def importing(s: Any, q: str) -> None:
    import json
    import os.path as path
    from math import floor

    s += q + sgl.gen("a", max_tokens=3)
    s += json.dumps([s["a"]]) + path.basename("a/" + q) + str(floor(2.5)) + sgl.gen("b",
                                                                                  max_tokens=2)


# -- functions ----------------------------------------------------------------------------------
@whole
def callbacks(s: Any, q: str) -> None:
    factor = 2

    def score(x: str, plus: int = 1) -> int:
        return num(x) * factor + plus

    s += q + sgl.gen("a", max_tokens=4, ignore_eos=True)
    found = sorted(find(s["a"]), key=lambda x: score(x))
    s += str(found) + str(max(find(s["a"]), key=score)) + str(list(map(score, find(q))))
    s += str(functools.reduce(lambda a, b: a + b, find(q), s["a"])) + sgl.gen("b", max_tokens=2)


@whole
def recursive_callback(s: Any, q: str) -> None:
    def count(n: int) -> int:
        return log(n) and (n if n <= 0 else 1 + count(n - 1))

    s += q + sgl.gen("a", max_tokens=3)
    s += str(list(map(count, [num(s["a"])]))) + sgl.gen("b", max_tokens=2)


@breaks("SGLC113", shared=True)
def callback_over_a_changing_variable(s: Any, q: str) -> None:
    n = 1
    s += q + sgl.gen("a", max_tokens=2)
    SEEN["f"] = later = functools.partial(map, lambda x: x * n)
    n = 2
    s += str(list(later([1, 2]))) + sgl.gen("b", max_tokens=2)


@whole
def decorated(s: Any, q: str) -> None:
    @sgl.program
    def inner(t: Any, x: str) -> str:
        t += x + q + sgl.gen("i", max_tokens=3)
        return t["i"] + "!"

    @functools.lru_cache
    def twice(x: str) -> str:
        log("twice", x)
        return x + x

    s += q + sgl.gen("a", max_tokens=2)
    got = inner(s["a"])
    s += got["i"] + got.text() + got.ret_value + inner(x="k")["i"]
    s += twice(s["a"]) + twice(s["a"]) + sgl.gen("b", max_tokens=2)


async def fetch(x: str) -> str:
    log("fetch", x)
    await asyncio.sleep(0)
    return x + "?"


async def ask(s: Any, x: str) -> str:
    s += x + sgl.gen("asked", max_tokens=2)
    return await fetch(s["asked"])


@whole
async def coroutine(s: Any, q: str) -> str:
    s += q + sgl.gen("a", max_tokens=3)
    task = asyncio.create_task(fetch("task"))
    s += await fetch(s["a"])
    pair = await asyncio.gather(fetch(s["a"]), fetch("k"))
    s += pair[0] + await task + await ask(s, "ask") + sgl.gen("b", max_tokens=2)
    if num(s["b"]) == 1:
        raise ValueError(s["b"])
    return s["a"] + await fetch("end")


@breaks("SGLC111")
def a_class(s: Any, q: str) -> None:
    class Point:
        x = q

    s += Point.x + sgl.gen("a", max_tokens=2)


# -- texts --------------------------------------------------------------------------------------
@whole
def formats(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=4, ignore_eos=True)
    a, n = s["a"], num(q)
    s += "%s-%d|%5s" % (a, n, a)
    s += "%(k)r" % {"k": a} + "{0[0]} {1.real} {k!r:>9}".format(a, n, k=a)
    s += f"{a:>{n + 7}}|{n:0{n + 2}d}|{a!r:^{len(a) + 4}}" + sgl.gen("b", max_tokens=2)


@whole
def types_of(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=2)
    n = num(s["a"])
    s += f"{type(n).__name__}{type(s['a']).__name__}{type(n) is int}{type(s['a']) is str}"
    s += f"{isinstance(n, (int, str))}" + sgl.gen("b", max_tokens=2)


# -- containers ---------------------------------------------------------------------------------
@whole
def generated_keys(s: Any, q: str) -> Any:
    s += q + sgl.gen("a", max_tokens=3) + sgl.select("c", ["x", "y"])
    table = {s["a"]: 1, **{"k": q}}
    table["n"] = 2
    counts: dict[str, int] = {}
    for word in ("u", s["a"], "u"):
        counts[word] = counts.get(word, 0) + 1
    s += f"{len(table)}{table[s['a']]}{s['a'] in table}{'n' in table}{counts}"
    s += TABLE[s["c"]] + {"x": "1", "y": "2"}[s["c"]] + str({s["a"]} == {s["a"], s["a"]})
    if s["a"] in ("e", "f") or s["a"] not in {"g": 1} and s["a"] in {"h", "e"}:
        s += "known"
    s += str({c: len(c) for c in ("e", s["a"])}) + sgl.gen("b", max_tokens=2)
    return table


@whole
def functions_in_a_table(s: Any, q: str) -> None:
    def hi(t: Any) -> None:
        t += "hi" + sgl.gen("said", max_tokens=2)

    def bye(t: Any) -> None:
        t += "bye" + sgl.gen("said", max_tokens=3)

    s += q + sgl.select("c", ["hi", "bye"])
    {"hi": hi, "bye": bye}[s["c"]](s)
    s += s["said"]


@whole
def host_values_in_builtins(s: Any, q: str) -> Any:
    s += q + sgl.gen("a", max_tokens=3)
    found = find(s["a"])
    s += f"{list(found)}{[*found, q]}{(*found,)}{tuple(found)}{sum([num(q), 1])}{min(found)}"
    s += f"{dict(zip('a', [found], strict=True))}{ {**{'k': q}, q: 1} }"
    s += f"{set(found) == set(found)}{sorted(found)[0]}"
    s += sgl.gen("b", max_tokens=2)
    return list(s["a"])


@breaks("SGLC110", shared=True)  # SEEN is read again after a change
def handed_over(s: Any, q: str) -> Any:
    out = [q]
    nested = {"out": out}
    s += q + sgl.gen("a", max_tokens=2)
    out.append(s["a"])
    keep(out)
    out.append("after")
    out += ["more"]
    log(out, nested, len(out), "after" in out, out[-1])
    s += "".join(out) + str(nested["out"] is out) + sgl.gen("b", max_tokens=2)
    SEEN["n"] = nested
    nested["x"] = s["b"]
    log(nested, SEEN["n"])
    return out


@breaks("SGLC110", shared=True)  # SEEN is read again after a change
def kept_by_something_outside(s: Any, q: str) -> None:
    mine = [q]
    SEEN.setdefault("lists", []).append(mine)
    s += q + sgl.gen("a", max_tokens=2)
    mine.append(s["a"])
    log(SEEN["lists"][-1], mine)
    s += mine[1]


@breaks("SGLC110", shared=True)
def looped_over_afterwards(s: Any, q: str) -> None:
    out = [q, "x"]
    s += q + sgl.gen("a", max_tokens=2)
    keep(out)
    for o in out:
        s += o + sgl.gen("b", max_tokens=2)


@breaks("SGLC113")
def handed_over_in_its_own_loop(s: Any, q: str) -> None:
    out = [q, "x"]
    s += q + sgl.gen("a", max_tokens=2)
    for o in out:
        s += o + sgl.gen("b", max_tokens=2)
        log(out)


# -- choosing between states ----------------------------------------------------------------------
@whole
def best_of_forks(s: Any, q: str) -> None:
    s += q
    forks = s.fork(3)
    for i, f in enumerate(forks):
        f += f"{i}:" + sgl.gen("a", max_tokens=3)
    best = max(forks, key=lambda f: num(f["a"]))
    best += "best" + sgl.gen("more", max_tokens=2)
    s += best["a"] + best["more"] + min(forks, key=lambda f: len(f["a"]))["a"]
    s += sgl.gen("b", max_tokens=2)


@whole
def sorted_forks(s: Any, q: str) -> None:
    s += q
    forks = s.fork(3)
    forks += sgl.gen("a", max_tokens=3)
    for f in sorted(forks, key=lambda f: num(f["a"]), reverse=True):
        s += f["a"] + ";"
    s += sgl.gen("b", max_tokens=2)


@breaks("SGLC110")
def best_of_many(s: Any, q: str) -> None:
    s += q
    forks = s.fork(9)
    forks += sgl.gen("a", max_tokens=2)
    s += max(forks, key=lambda f: num(f["a"]))["a"] + sgl.gen("b", max_tokens=2)


@pytest.mark.parametrize(("fn", "code", "shared"), PROGRAMS,
                         ids=[fn.__name__ for fn, _, _ in PROGRAMS])
def test_construct(fn: Callable[..., Any], code: str | None, shared: bool, model: Any) -> None:
    got = check(sgl.program(fn), model, code, shared)
    assert len({repr(g) for g in got}) > 1


def test_an_error_shows_the_users_line(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2)
        if log(s["a"]):
            raise LookupError("told so")

    with pytest.raises(LookupError, match="told so") as e:
        p.run(backend=model)
    last = traceback.extract_tb(e.value.__traceback__)[-1]
    assert (last.filename, last.name, last.line) == (
        __file__, "p", 'raise LookupError("told so")')


def test_an_import_that_was_not_made_before_is_made_at_run_time(model: Any) -> None:
    sys.modules.pop("this_is_not_a_module", None)

    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2)
        log("before")
        import this_is_not_a_module

        s += this_is_not_a_module.x

    CALLS.clear()
    assert p.compile().graph_breaks == 0 and CALLS == []
    with pytest.raises(ModuleNotFoundError):
        p.run(backend=model)
    assert CALLS == [("log", "before")]


def test_rows_that_count_on_one_object(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: str) -> None:
        global COUNT
        s += q + sgl.gen("a", max_tokens=2)
        BOX.n += 1
        SEEN["n"] += len(q)
        COUNT += 1

    global COUNT
    for mode in ("eager", "compiled"):
        BOX.n, COUNT, SEEN["n"] = 0, 0, 0
        p.run_batch([("ab",)] * 40, backend=model, mode=mode)
        assert (BOX.n, COUNT, SEEN["n"]) == (40, 40, 80), mode


def test_what_an_update_reads_first(model: Any) -> None:
    def other() -> int:
        BOX.n += 10
        SEEN["n"] += 10
        return 1

    @sgl.program
    def p(s: Any) -> None:
        s += "x"
        BOX.n += other()
        SEEN["n"] += other()

    for mode in ("eager", "compiled"):
        BOX.n, SEEN["n"] = 0, 0
        p.run(backend=model, mode=mode)
        assert (BOX.n, SEEN["n"]) == (11, 11), mode


def test_twelve_branches_are_few_operations(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: str) -> None:
        s += q + sgl.select("x", ["yes", "no"])
        for i in range(12):
            if s["x"] == ("no" if i % 3 else "yes"):
                s += f"{i}: as expected"
            elif i % 2:
                s += f"{i}: not so"
        s += sgl.gen("end", max_tokens=3)

    @sgl.program
    def each(s: Any, q: str) -> None:
        s += q + sgl.gen("x", max_tokens=4, ignore_eos=True)
        for c in "abcdefghijkl":
            if c in s["x"]:
                s += c
            else:
                s += "."
        s += sgl.gen("end", max_tokens=3)

    for program in (p, each):
        compiled = program.compile("yes and no, and yes")
        ops = list(compiled.stages["prompt"].walk())
        assert compiled.paths == 1 and compiled.graph_breaks == 0
        assert not any(op.name == "prompt.if" for op in ops)
        assert len(ops) < (40 if program is p else 48)
        check(program, model)
