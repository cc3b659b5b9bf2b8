"""What a body passes on to Python that is not traced: methods, views, sets, programs, lists that
change afterwards.  Compiled is eager, or says what it cannot do."""

from __future__ import annotations

import copy
import functools
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sglc as sgl

SEEN: list[Any] = []
TABLE = {"a": "1", "e": "2"}
MARKS: set[str] = set()
FIXED = {"the", "a", "cd"}
record = SEEN.append
look_up = TABLE.get
values = TABLE.values()


class Holder:
    """An object that keeps a method of a list, and a set."""

    def __init__(self) -> None:
        self.record = record
        self.seen: set[str] = set()


HOLDER = Holder()


def reset() -> None:
    SEEN.clear()
    MARKS.clear()
    HOLDER.seen = set()
    TABLE.clear()
    TABLE.update({"a": "1", "e": "2"})


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    reset()
    yield
    reset()


def outcome(state: Any) -> Any:
    error = state.error()
    if error is not None:
        return type(error), str(error)
    return (state.text(), state.token_ids(), state.ret_value,
            {n: state[n] for n in state.variable_names()}, list(SEEN), sorted(map(str, MARKS)))


def run(program: Any, model: Any, rows: list[Any], **options: Any) -> list[Any]:
    reset()
    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            try:
                out.append(outcome(program.run(*copy.deepcopy(row), backend=model, seed=5,
                                               max_new_tokens=4, **options)))
            except Exception as e:
                out.append((type(e), str(e)))
    return out


def same(program: Any, model: Any, rows: list[Any]) -> list[Any]:
    wanted = run(program, model, rows, mode="eager")
    reset()
    left = copy.deepcopy((SEEN, MARKS, TABLE))
    program.compile(*copy.deepcopy(rows[0]))
    assert (SEEN, MARKS, TABLE) == left, "compiling ran a part of the program"
    for options in ({}, {}, {"stream": True}):
        assert run(program, model, rows, **options) == wanted
    model.core.check()
    return wanted


def results(text: str) -> list[str]:
    return [text, "b"]


def apply(fn: Callable[..., Any], *args: Any) -> Any:
    return fn(*args)


@sgl.program
def inner(s: Any, x: str, y: str = "d", *, z: int = 1) -> str:
    s += f"{x}{y}{z}" + sgl.gen("i", max_tokens=3)
    return str(s["i"]) + "!"


PROGRAMS = {"inner": inner}


class Team:
    """An object that has a program."""

    def __init__(self) -> None:
        self.member = inner
        self.members = [inner]

    def ask(self, q: str) -> Any:
        return self.member(q)["i"]

    def ask_all(self, q: str) -> list[Any]:
        return [m(q)["i"] for m in self.members]

    def __call__(self, q: str) -> Any:
        return self.ask(q) + "?"


TEAM = Team()


def through(q: str) -> Any:
    return inner(q)["i"]


def through_two(q: str) -> Any:
    return through(q) + "!"


def through_a_list(q: str) -> str:
    return "".join([inner(x)["i"] for x in (q, "z")])


CASES: list[Callable[..., Any]] = []


def case(fn: Callable[..., Any]) -> Callable[..., Any]:
    CASES.append(fn)
    return fn


# -- methods of containers and texts ----------------------------------------------------------
@case
def key_of_a_list(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=3)
    words = [s["a"], "q", "q"]
    s += max(words, key=words.count) + sgl.gen("b", max_tokens=2)
    s += max(sorted(set(words)), key=words.count)


@case
def get_of_a_dict_that_changes(s: Any, q: str) -> None:
    table = {"e": "3", " ": "_", "a": q}
    s += q + sgl.gen("a", max_tokens=4)
    s += "".join(map(lambda c: table.get(c, c), s["a"]))  # noqa: C417
    before = list(map(table.get, list(s["a"] + "a")))
    table["a"] = "changed"
    s += f"{before}{list(map(table.get, list(s['a'] + 'a')))}" + sgl.gen("b", max_tokens=2)


@case
def append_is_mapped(s: Any, q: str) -> None:
    words, kept, table = ["first"], {q}, {"k": q}
    s += q + sgl.gen("a", max_tokens=3)
    list(map(words.append, s["a"] + "zz"))
    words.append("x")
    apply(kept.add, s["a"])
    apply(table.setdefault, "w", s["a"])
    functools.partial(apply, words.append)("y")
    s += f"{len(words)}{words}{words[-1]}{sorted(kept)}{table}{len(table)}"


@case
def methods_of_texts(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=4)
    s += str(list(map(s["a"].count, "ea"))) + str(list(map(q.find, s["a"])))
    s += apply(s["a"].upper) + apply("{}-{}".format, s["a"], q)


@case
def views_of_a_dict(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=3)
    table = {"a": q, "b": s["a"]}
    s += str(sorted(Counter(table.values()))) + str(list(map(str, table.items())))
    table["c"] = "d"
    s += ",".join(map(str.upper, table.keys())) + sgl.gen("b", max_tokens=2)
    names = table.keys()
    apply(table.update, {"z": s["b"]})
    s += f"{len(names)}{list(names)}{'z' in names}" + "".join(names)


@case
def methods_from_outside(s: Any, q: str) -> None:
    record(q)
    s += q + str(len(SEEN)) + sgl.gen("a", max_tokens=2)
    HOLDER.record(s["a"])
    list(map(record, s["a"]))
    TABLE["b"] = q
    s += str(SEEN) + str(look_up("b")) + str(list(map(look_up, "ab"))) + str(list(values))


@case
def the_states_own_method(s: Any, q: str) -> None:
    s += q
    apply(s.append, "x")
    s += sgl.gen("a", max_tokens=2)
    s += "".join(map(s.get_var, ["a", "a"]))


# -- sets from outside ------------------------------------------------------------------------
@case
def a_set_that_is_changed(s: Any, q: str) -> None:
    if q in MARKS:
        s += "again"
    MARKS.add(q)
    s += q + sgl.gen("a", max_tokens=2)
    MARKS.add(s["a"])
    HOLDER.seen |= {q, "k"}
    HOLDER.seen.discard("k")
    s += f"{len(MARKS)}{q in MARKS}{sorted(MARKS)}{sorted(HOLDER.seen)}{MARKS >= HOLDER.seen}"


@case
def a_set_that_is_read(s: Any, q: str) -> None:
    s += ("known" if q in FIXED else "new") + q + sgl.gen("a", max_tokens=3)
    for word in FIXED:
        s += word
    s += f"{FIXED}{sorted(FIXED)}" + str(FIXED | {q}) + str(s["a"] in FIXED) + ",".join(FIXED)


# -- variables that are containers ------------------------------------------------------------
@case
def variables_that_change_in_place(s: Any, q: str) -> Any:
    words = [q]
    s["words"], s["table"] = words, {"k": q}
    words.append("later")
    s += str(s["words"]) + sgl.gen("a", max_tokens=2)
    s["words"].append(s["a"])
    s["table"]["a"] = s["a"]
    forks = s.fork(2)
    forks[0]["words"].append("of a fork")
    forks[1]["words"] = ["own"]
    forks += sgl.gen("b", max_tokens=1)
    forks.join()
    s["b"].append("end")
    s += f"{s['words']}{s['table']}{s['b']}{s['words'] is words}{forks[1]['words']}"
    return words


@case
def tuples_of_lists_that_change(s: Any, q: str) -> None:
    known = [q]
    s["known"] = (known, {"k": known})
    s += q + sgl.gen("a", max_tokens=2)
    found = [s["a"]]
    s["found"] = ("t", found)
    known.append("later")
    found.append(q)


@case
def variables_named_by_values(s: Any, q: str) -> None:
    with s.var_scope(q):
        s += q + "x" + sgl.gen("g", max_tokens=2)
    s[q + "2"] = 5
    s += s[q] + str(s[q + "2"])
    s[s["g"] + "!"] = "set"
    s += s[s["g"] + "!"]


@case
def views_as_text(s: Any, q: str) -> None:
    s += q + f"{TABLE.keys()}{TABLE.items()}" + str(TABLE.values()) + str("a" in TABLE.keys())
    s += sgl.gen("g", max_tokens=2)
    s += str(s["g"] in TABLE.values()) + ",".join(TABLE.keys())


# -- lists that change ------------------------------------------------------------------------
@case
def a_list_that_grows_in_its_loop(s: Any, q: str) -> None:
    found = results(q)
    for x in found:
        s += x + sgl.gen("a", max_tokens=1)
        if len(found) < 4:
            found.append(x + "!")
    s += str(found)
    for x in found:
        found.pop()
        s += x


@sgl.program
def read_before_a_change(s: Any, words: list[str], table: dict[str, Any]) -> None:
    words.append("z")
    table["words"] = words
    s += str(table) + sgl.gen("a", max_tokens=2)
    words.pop()
    s += str(words) + str(len(words))


def test_a_dict_that_grows_in_its_loop(model: Any) -> None:
    def p(s: Any, q: str) -> None:
        s += q + sgl.gen("a", max_tokens=2)
        table = dict.fromkeys(results(s["a"]), 0)
        counts = Counter(results(q))
        for k in counts:
            counts[k] += 1  # its size stays
            s += k
        for k in counts:
            counts[k + "x"] = 1
            s += k
        s += str(table)

    got = same(sgl.program(p), model, [("a",), ("cd",)])
    assert got == [(RuntimeError, "dictionary changed size during iteration")] * 2


# -- programs ---------------------------------------------------------------------------------
@case
def bound_in_the_body(s: Any, q: str) -> None:
    other = inner.bind(z=9)
    s += other(q)["i"] + other.bind(y="f")(q).ret_value + sgl.gen("e", max_tokens=1)


@case
def bound_to_a_run_time_value(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=2)
    s += inner.bind(y=s["a"])(q)["i"]


@case
def programs_of_an_object(s: Any, q: str) -> None:
    s += TEAM.ask(q) + "".join(TEAM.ask_all(q)) + TEAM(q) + sgl.gen("e", max_tokens=1)


@case
def through_functions(s: Any, q: str) -> None:
    s += through_two(q) + through_a_list(q) + sgl.gen("e", max_tokens=1)


@case
def handed_to_a_builtin(s: Any, q: str) -> None:
    s += "".join(x["i"] for x in map(inner, [q, "y"])) + apply(through, q)
    s += functools.partial(inner, z=4)(q)["i"]


@case
def expressions_handed_over(s: Any, q: str) -> None:
    s += functools.reduce(operator.add, [q, sgl.gen("a", max_tokens=2), "y"])


@case
def a_program_in_try(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=2)
    try:
        r = inner(s["a"])["i"]
    except KeyError:
        r = "none"
    s += r


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_passed_on(fn: Callable[..., Any], model: Any) -> None:
    got = same(sgl.program(fn), model, [("a",), ("cd",), ("a",)])
    assert len({g[0] for g in got}) > 1 and not any(isinstance(g[0], type) for g in got)


def test_variables_of_a_body_that_raises(model: Any) -> None:
    def p(s: Any, q: str) -> None:
        words = [q]
        s["words"] = words
        s += q + sgl.gen("a", max_tokens=2)
        words.append("later")
        raise ValueError(q)

    program = sgl.program(p)
    for mode in ("eager", "compiled"):
        rows = program.run_batch([("x",), ("y",)], backend=model, mode=mode, seed=1)
        assert [row["words"] for row in rows] == [["x", "later"], ["y", "later"]]
        assert all(isinstance(row.error(), ValueError) for row in rows)


def test_variables_of_forks_that_failed(model: Any) -> None:
    """What a join gathers is the error of those that it is gathered from."""
    @sgl.program
    def p(s: Any, q: str) -> None:
        forks = s.fork(2)
        forks[0] += q
        forks += sgl.gen("a", max_tokens=1)  # the second one's prompt is empty
        forks.join()
        s += q

    for mode in ("eager", "compiled"):
        (state,) = p.run_batch([("x",)], backend=model, seed=1, mode=mode)
        assert "SGLC507" in str(state.error())
        for read in (lambda s=state: s["a"], state.sync):
            with pytest.raises(sgl.SglcError, match="SGLC507"):
                read()


def test_what_is_read_before_a_change(model: Any) -> None:
    same(read_before_a_change, model, [(["b", "a"], {"k": 1}), (["c"], {})])


def test_a_program_as_an_argument(model: Any) -> None:
    def p(s: Any, q: str, fn: Any) -> None:
        s += fn(q)["i"] + sgl.gen("e", max_tokens=1)

    program = sgl.program(p)
    for fn in (inner, lambda q: inner(q, z=2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            texts = [program.run("a", fn, backend=model, seed=1, mode=mode).text()
                     for mode in ("eager", "compiled")]
        assert texts[0] == texts[1]


def test_a_program_that_python_calls_unseen_is_an_error(model: Any) -> None:
    """Even where the program catches it: what it would do instead is not what eager does."""
    def p(s: Any, q: str) -> None:
        s += q + sgl.gen("a", max_tokens=2)
        try:
            found = PROGRAMS["inner"](s["a"])["i"]
        except Exception:
            found = "failed"
        s += found

    program = sgl.program(p)
    assert program.run("a", backend=model, mode="eager").error() is None
    with pytest.raises(sgl.SglcError, match="SGLC112 the program inner is called by Python"):
        program.run("a", backend=model)


def test_numbers_that_are_equal_and_written_differently(model: Any) -> None:
    def p(s: Any, x: Any) -> Any:
        s += str([x]) + f"{x}" + sgl.gen("a", max_tokens=2)
        return x

    program = sgl.program(p)
    rows = [(0.0,), (-0.0,), (1.0,), (1,), (True,), ([0.0],), ([-0.0],), (float("nan"),)]
    wanted = repr(run(program, model, rows, mode="eager"))
    assert repr(run(program, model, rows)) == wanted


def helper(s: Any) -> str:
    s += "[one]"
    return "1"


def other_helper(s: Any) -> str:
    s += "[two]"
    return "2"


def test_code_that_is_reloaded_in_place(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What notebooks do to functions whose file was edited."""
    def p(s: Any) -> None:
        s += helper(s) + sgl.gen("a", max_tokens=2)

    def q(s: Any) -> None:
        s += "new" + sgl.gen("a", max_tokens=2)

    program = sgl.program(p)
    start = program.run(backend=model, seed=1).text()
    assert start.startswith("[one]1")
    monkeypatch.setattr(helper, "__code__", other_helper.__code__)
    assert program.run(backend=model, seed=1).text().startswith("[two]2")
    monkeypatch.undo()
    assert program.run(backend=model, seed=1).text() == start
    p.__code__ = q.__code__
    assert program.run(backend=model, seed=1).text().startswith("new")
