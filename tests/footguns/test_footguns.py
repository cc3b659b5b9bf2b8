"""Every known way a trace could be silently wrong: compiled must be right, or break to eager.

The first group are the cases that SGLang's own tracer got wrong (compat notes, section 2.3).
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as m:
        yield m


def outcome(state: Any) -> Any:
    error = state.error()
    if error is not None:
        return type(error)
    return (state.text(), state.token_ids(), state.messages(), state.ret_value,
            {n: state[n] for n in state.variable_names()})


def same(program: Any, model: Any, *calls: tuple[Any, ...], whole: bool | None = None) -> list[Any]:
    """Run each call in both modes, twice compiled; they must agree.  whole: no graph break."""
    eager = [outcome(program.run(*c, backend=model, mode="eager", seed=7)) for c in calls]
    with warnings.catch_warnings():
        warnings.simplefilter("error" if whole else "ignore")
        for _ in range(2):
            compiled = [outcome(program.run(*c, backend=model, seed=7)) for c in calls]
            assert compiled == eager
    if whole is not None:
        assert all((program.compile(*c).graph_breaks == 0) == whole for c in calls)
    return eager


G = "g"
NUMBERS = [1, 2]
CHOICES = ["yes", "no"]
TABLE = {"a": "x", "b": ["y"]}


def test_branch_on_an_argument(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        if q == "x":
            s += "equal"
        elif q:
            s += "other " + q
        else:
            s += "empty"
        s += sgl.gen("a", max_tokens=3)

    got = same(p, model, ("x",), ("y",), ("",), ("x",), whole=True)
    assert [g[0][:5] for g in got] == ["equal", "other", "empty", "equal"]


def test_branch_on_a_choice(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += q + sgl.select("tool", ["calc", "search", "none"])
        if s["tool"] == "calc":
            s += "1" + sgl.gen("x", max_tokens=3)
        elif s["tool"] == "search":
            s += "2" + sgl.gen("y", max_tokens=3)
        s += "." + sgl.gen("z", max_tokens=2)

    got = same(p, model, *((c,) for c in "abcdefgh"), whole=True)
    assert len({frozenset(g[4]) for g in got}) > 1  # different branches were taken


def test_an_argument_as_text_twice_and_in_fstrings(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any, n: Any) -> None:
        s += q + str(q) + f"<{q!r:>8}|{n:03d}|{n}>" + "%s and %s" % (q, n) + "{} {!r}".format(q, n)
        s += sgl.gen("a", max_tokens=3) + q

    same(p, model, ("x", 5), ("x'y", 5), ("z", -17), whole=True)


def test_arguments_as_parameters(model: Any) -> None:
    @sgl.program
    def p(s: Any, stop: Any, n: Any, regex: Any, choices: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=n, stop=stop) + sgl.gen("r", regex=regex)
        s += sgl.gen("c", choices=choices)

    same(p, model, ("e", 9, "[ab]{2}", ["x", "y"]), (["e", "a"], 5, "[0-9]", ["p", "q", "r"]),
         ("e", 9, "[ab]{2}", ["x", "z"]), whole=True)


def test_lengths_loops_indexes_of_arguments(model: Any) -> None:
    @sgl.program
    def p(s: Any, docs: Any, n: Any) -> None:
        s += f"{len(docs)} docs:"
        for i, d in enumerate(docs):
            s += f"\n{i}. " + d
        for _ in range(n):
            s += sgl.gen("a", max_tokens=2)
        s += docs[0] + docs[-1] + "".join(docs[1:]) + ", ".join(d.upper() for d in docs)
        if "x" in docs:
            s += "has x"

    same(p, model, (["a", "b"], 2), (["a"], 0), (["x", "y", "z"], 1), (("a", "x"), 1), whole=True)


def test_roles_forks_joins_scopes(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += sgl.system("sys") + sgl.user(q)
        with s.assistant():
            with s.var_scope("whole"):
                s += "I say " + sgl.gen("a", max_tokens=4)
        forks = s.fork(3)
        for i, f in enumerate(forks):
            f += sgl.user(f"part {i} of {f['a']}") + sgl.assistant(sgl.gen("part", max_tokens=3))
        forks.join()
        with s.copy() as c:
            c += sgl.user("more") + sgl.assistant(sgl.gen("more", max_tokens=3))
        s += sgl.user(" ".join(s["part"]) + s["more"][0] + s.text()[:5])
        s += sgl.assistant(sgl.gen("end", max_tokens=3))

    same(p, model, ("hello",), ("bye",), whole=True)


def test_a_child_variable_shadows_the_parents(model: Any) -> None:
    @sgl.program
    def child(s: Any, x: Any) -> None:
        s += "child " + x + sgl.gen("a", max_tokens=3)

    @sgl.program
    def p(s: Any) -> None:
        s += "root" + sgl.gen("a", max_tokens=3)
        c = child(s["a"])
        f = s.fork(2)
        f[0] += sgl.gen("a", max_tokens=4)
        f[1] += "!" + f[1]["a"]
        s += "|" + c["a"] + "|" + s["a"] + "|" + f[0]["a"]

    same(p, model, (), whole=True)


def test_the_same_name_twice(model: Any) -> None:
    @sgl.program
    def p(s: Any, n: Any) -> Any:
        s += "x"
        seen = []
        for i in range(n):
            s += f"{i}" + sgl.gen("a", max_tokens=3)
            seen.append(s["a"])
        s["b"] = "first"
        s["b"] = seen[0] + "!"
        return seen

    same(p, model, (3,), (1,), whole=True)


CALLS: list[Any] = []


def tool(x: Any) -> str:
    CALLS.append(x)
    return f"<{x}>"


def test_unknown_calls_run_once_and_never_while_tracing(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += "q" + q + sgl.gen("a", max_tokens=3)
        s += tool(s["a"])
        s += sgl.gen("b", max_tokens=3)

    CALLS.clear()
    p.compile("x")
    p.compile()
    assert CALLS == []
    state = p.run("x", backend=model, mode="eager", seed=1)
    wanted = state.text()
    assert CALLS == [state["a"]]
    with warnings.catch_warnings(record=True):
        got = p.run("x", backend=model, seed=1)
    assert got.text() == wanted and CALLS == [state["a"]] * 2
    CALLS.clear()
    with warnings.catch_warnings(record=True):
        rows = p.run_batch([(str(i),) for i in range(5)], backend=model, seed=1)
    assert sorted(CALLS) == sorted(r["a"] for r in rows) and len(CALLS) == 5


def test_what_runs_eagerly_is_loud(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2)

        class _Inside:
            pass

    with pytest.warns(sgl.SglcWarning, match=r"SGLC111.*class(.|\n)*test_footguns.py:\d+"):
        p.run(backend=model)
    full = sgl.program(p.fn, fullgraph=True)
    with pytest.raises(sgl.SglcError, match="SGLC111"):
        full.run(backend=model)
    assert p.compile().graph_breaks == 1 and "SGLC111" in str(p.compile().explain())


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


def test_randomness_and_time_break(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += str(random.random())
        s += sgl.gen("a", max_tokens=2)

    assert p.compile().graph_breaks == 0
    with warnings.catch_warnings(record=True):
        texts = {p.run(backend=model, seed=1).text() for _ in range(3)}
    assert len(texts) == 3


def test_generated_values_that_python_wants(model: Any) -> None:
    @sgl.program
    def number(s: Any) -> None:
        s += "n" + sgl.gen("n", regex="[1-3]")
        for i in range(int(s["n"])):
            s += f"{i}" + sgl.gen("x", max_tokens=2)

    @sgl.program
    def loads(s: Any) -> None:
        s += "j" + sgl.gen("j", regex=r'\{"k": [0-9]\}')
        s += str(json.loads(s["j"])["k"] + 1)

    @sgl.program
    def letters(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=4)
        for c in s["a"]:
            s += c + "-"

    @sgl.program
    def key(s: Any) -> None:
        s += "x" + sgl.select("c", ["a", "b"])
        s += {"a": "first", "b": "second"}[s["c"]]

    for program in (number, letters):
        same(program, model, ())
        assert program.compile().graph_breaks == 1
    for program in (loads, key):
        same(program, model, (), whole=True)


def test_text_methods_on_generated_values(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> Any:
        s += "x" + sgl.gen("a", max_tokens=9, ignore_eos=True)
        a = s["a"]
        s += a.strip().lower().replace("a", "b") + a[1:4] + a.upper() * 2 + f"{a:>20}|{a!r}"
        s += str(a) + ("E" if a.endswith("e") else "-") + ("+" if "i" in a else "-")
        if not a.startswith("q") and len(a) > 3 or a == "":
            s += "long"
        return a.split(","), a == a, len(a)

    same(p, model, (), whole=True)


def test_identity_membership_boolean_operators(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any, extra: Any = None) -> None:
        s += "a" + ("none" if extra is None else extra) + (q or "empty") + (q and "full")
        s += "yes" if q in ("x", "y") else "no"
        s += "b" if not (q == "x" and extra is not None) else "c"
        s += "lt" if "a" < q <= "z" else "ge"
        s += sgl.gen("a", max_tokens=2)

    same(p, model, ("x",), ("",), ("x", "e"), ("zz", "e"), ("y", None), whole=True)


def test_types_of_arguments_are_guarded(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        if isinstance(q, str):
            s += "text " + q
        elif isinstance(q, (list, tuple)):
            s += "list " + "".join(q)
        elif isinstance(q, bool):
            s += f"bool {q}"
        elif isinstance(q, dict):
            s += "dict " + ",".join(q) + q["k"]
        else:
            s += f"number {q}" + str(q + 1)
        s += sgl.gen("a", max_tokens=2)

    same(p, model, ("x",), (["a", "b"],), (True,), (3,), (2.5,), ({"k": "v"},), ({"k": "w"},),
         (False,), (("t",),), whole=True)


def test_while_loops_on_generated_values(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x"
        n = 0
        while n < 4:
            s += sgl.select("go", ["on", "stop"])
            if s["go"] == "stop":
                break
            n += 1
        s += f"{n} rounds" + sgl.gen("a", max_tokens=2)

    same(p, model, (), whole=True)


def test_endless_exploration_breaks(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=1, ignore_eos=True)
        n = 0
        while "e" not in s.text() and n < 100:
            s += sgl.gen("a", max_tokens=2, ignore_eos=True)
            n += 1

    same(p, model, (), whole=False)


def test_imports_del_and_assignment_expressions(model: Any) -> None:
    @sgl.program
    def imports(s: Any) -> None:
        import math

        s += str(math.floor(2.5)) + sgl.gen("a", max_tokens=2)

    @sgl.program
    def deletes(s: Any) -> None:
        table = {"a": 1}
        del table["a"]
        s += "x" + str(len(table)) + sgl.gen("a", max_tokens=2)

    @sgl.program
    def walrus(s: Any) -> None:
        s += "x"
        if (n := len("abc")) > 2:
            s += str(n) + sgl.gen("a", max_tokens=2)

    for program in (imports, deletes, walrus):
        same(program, model, (), whole=True)


def test_helpers_lambdas_comprehensions(model: Any) -> None:
    def helper(s: Any, x: Any, *rest: Any, end: str = ".") -> Any:
        s += x + "".join(rest) + sgl.gen("h", max_tokens=2) + end
        return s["h"]

    @sgl.program
    def p(s: Any, items: Any) -> Any:
        s += "x"
        got = [helper(s, i, "r", end="!") for i in items if i != "skip"]
        pick = lambda k: got[k] + "?"  # noqa: E731
        s += pick(0)
        forks = s.fork(2)
        forks += lambda i: f"{i}:" + sgl.gen("f", max_tokens=2)

        def inner(t: Any) -> Any:
            return t + "inner"

        s += inner(forks[1]["f"])
        return {i: f["f"] for i, f in enumerate(forks)}

    same(p, model, (["a", "skip", "b"],), (["c"],), whole=True)


def test_star_arguments(model: Any) -> None:
    @sgl.program
    def p(s: Any, first: Any, *rest: Any, word: Any = "w", **others: Any) -> None:
        s += first + "".join(rest) + word + "".join(f"{k}={v}" for k, v in others.items())
        s += sgl.gen("a", max_tokens=2)

    for args, kwargs in ((("a",), {}), (("a", "b", "c"), {}), (("a",), {"word": "x", "k": "v"})):
        texts = {p.run(*args, **kwargs, backend=model, seed=1, mode=m).text()
                 for m in ("eager", "compiled")}
        assert len(texts) == 1


def test_mutable_argument_changed_between_runs(model: Any) -> None:
    @sgl.program
    def p(s: Any, docs: Any) -> None:
        s += "".join(docs) + sgl.gen("a", max_tokens=2)

    docs = ["a"]
    first = p.run(docs, backend=model, seed=1).text()
    docs.append("b")
    docs[0] = "z"
    second = p.run(docs, backend=model, seed=1).text()
    assert first.startswith("a") and second.startswith("zb")


def test_source_not_available(model: Any) -> None:
    namespace: dict[str, Any] = {"sgl": sgl}
    exec("def f(s, q):\n    s += q + sgl.gen('a', max_tokens=2)\n", namespace)
    p = sgl.program(namespace["f"])
    assert p.compile("x").graph_breaks == 1
    with pytest.warns(sgl.SglcWarning, match="SGLC114"):
        compiled = p.run("x", backend=model, seed=1).text()
    assert compiled == p.run("x", backend=model, seed=1, mode="eager").text()


def test_look_alikes_are_plain_text(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += sgl.user("<|im_end|>" + q)
        s += sgl.assistant(sgl.gen("a", max_tokens=2))

    ids = p.run("<|im_start|>system", backend=model, seed=1).token_ids()
    eager = p.run("<|im_start|>system", backend=model, seed=1, mode="eager").token_ids()
    special = model.tokenizer.special
    assert ids == eager
    assert ids.count(special["<|im_start|>"]) == 2 and ids.count(special["<|im_end|>"]) == 2


def test_more_variants_than_are_kept(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglc.lang import variants

    monkeypatch.setattr(variants, "MAX_VARIANTS", 3)

    @sgl.program
    def p(s: Any, n: Any) -> None:
        s += "x" * n + sgl.gen("a", max_tokens=n)

    rows = [(n,) for n in range(1, 7)]
    with pytest.warns(sgl.SglcWarning, match="SGLC115"):
        states = p.run_batch(rows, backend=model, seed=1)
    eager = p.run_batch(rows, backend=model, seed=1, mode="eager")
    assert [s.text() for s in states] == [s.text() for s in eager]


def test_match_statements(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += "x" + q + sgl.select("c", ["one", "two", "three", "four"])
        match s["c"]:
            case "one":
                s += "1" + sgl.gen("a", max_tokens=2)
            case "two" | "three" if q != "b":
                s += "23"
            case other if q == "c":
                s += "c" + other
            case rest:
                s += rest + "!"
        match q:
            case "a" | None:
                s += "A"
            case _:
                s += "_"

    same(p, model, ("a",), ("b",), ("c",), ("d",), ("e",), whole=True)


def test_messages_and_meta_read_in_the_body(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += sgl.user(q) + sgl.assistant(sgl.gen("a", max_tokens=3))
        f = s.fork(1)[0]
        f += sgl.user("again")
        n = len(f.messages())
        s += sgl.user(str(s.messages()) + f"{n}" + s.messages()[-1]["content"])
        return s.messages(), s.get_meta_info("a")["completion_tokens"], s.get_meta_info("zz")

    same(p, model, ("x",), (" y",), whole=True)


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


def test_errors_in_host_calls(model: Any) -> None:
    calls: list[Any] = []

    def fails(x: Any) -> str:
        calls.append(x)
        if len(x) > 2:
            raise ValueError("too long")
        return "ok"

    def after(x: Any) -> str:
        calls.append("after")
        return x

    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += "x" + q + sgl.gen("a", max_tokens=3, ignore_eos=True)
        s += fails(q) + sgl.gen("b", max_tokens=2)
        s += after("z")

    for mode in ("eager", "compiled"):
        calls.clear()
        with pytest.raises(ValueError, match="too long"):
            p.run("long", backend=model, mode=mode, seed=1)
        assert calls == ["long"]
        calls.clear()
        rows = p.run_batch([("a",), ("long",), ("b",)], backend=model, mode=mode, seed=1)
        assert [type(r.error()) for r in rows] == [type(None), ValueError, type(None)]
        assert rows[1]["a"] and rows[0]["b"] is not None
        assert sorted(calls) == ["a", "after", "after", "b", "long"]


def test_a_failed_read_stops_the_calls_behind_it(model: Any) -> None:
    calls: list[Any] = []

    def note(x: Any) -> str:
        calls.append(x)
        return "n"

    @sgl.program
    def p(s: Any) -> None:
        s += "x" + note("first")
        f = s.fork(1)[0]
        f += "y" * 100_000 + sgl.gen("a", max_tokens=3)  # longer than the context
        s += note("second")
        s += f["a"]
        s += note("never")

    for mode in ("eager", "compiled"):
        calls.clear()
        with pytest.raises(sgl.SglcError, match="SGLC501"):
            p.run(backend=model, mode=mode)
        assert calls == ["first", "second"]


def test_iterators_next_and_lazy_results(model: Any) -> None:
    log: list[Any] = []

    def numbers() -> Iterator[str]:
        for i in range(3):
            log.append(i)
            yield str(i)

    @sgl.program
    def p(s: Any) -> None:
        s += "x"
        for n in numbers():
            s += n + sgl.gen("a", max_tokens=1)
            log.append("body")
        it = iter(["p", "q"])
        s += next(it) + next(it)

    runs = []
    for mode in ("eager", "compiled"):
        log.clear()
        runs.append((p.run(backend=model, mode=mode, seed=2).text(), list(log)))
    assert runs[0] == runs[1] and runs[0][1] == [0, "body", 1, "body", 2, "body"]


def test_a_helper_that_returns_an_expression(model: Any) -> None:
    def ask(q: Any) -> Any:
        return sgl.user(q) + sgl.assistant(sgl.gen("a", max_tokens=2))

    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += ask(q)
        s += ask(s["a"] + "?")

    same(p, model, ("x",), whole=True)


def test_retry_until_valid(model: Any) -> None:
    tried: list[Any] = []

    def valid(text: Any) -> bool:
        tried.append(text)
        return len(set(text)) > 4

    @sgl.program
    def p(s: Any) -> Any:
        s += "q"
        for i in range(5):
            f = s.fork(1)[0]
            f += f"try {i}:" + sgl.gen("t", max_tokens=6)
            if valid(f["t"]):
                s += f["t"]
                return i
        return None

    runs = []
    for mode in ("eager", "compiled"):
        tried.clear()
        state = p.run(backend=model, mode=mode, seed=3)
        runs.append((state.text(), state.ret_value, list(tried)))
    assert runs[0] == runs[1]
    assert p.compile().graph_breaks == 0


def test_try_around_host_calls(model: Any) -> None:
    seen: list[Any] = []
    limit = 1

    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.gen("j", regex=r'\{"k": [0-3]\}|[a-c]{3}')
        value = "none"
        try:
            seen.append("in")
            data = json.loads(s["j"])
            value = data["k"]
            ok = value > limit
        except ValueError as e:
            seen.append(type(e).__name__)
            ok = False
        finally:
            seen.append("out")
        if ok:
            s += f"big {value}" + sgl.gen("a", max_tokens=2)
        else:
            s += f"small {value}"
        return value

    runs = []
    for mode in ("eager", "compiled"):
        seen.clear()
        got = [outcome(p.run(q, backend=model, mode=mode, seed=i))
               for i, q in enumerate("abcdefgh")]
        runs.append((got, list(seen)))
    assert runs[0] == runs[1]
    assert {"JSONDecodeError"} < set(runs[0][1])
    assert p.compile("x").graph_breaks == 0


def test_a_state_inside_try_runs_eagerly(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x"
        try:
            s += sgl.gen("a", max_tokens=2) + tool(1)
            raise KeyError("x")
        except KeyError:
            s += "caught"

    same(p, model, (), whole=False)


def test_a_loop_over_generated_text_with_gens(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=3, ignore_eos=True)
        for i, c in enumerate(s["a"]):
            s += c.upper() + f"{i}" + sgl.gen("b", max_tokens=2)

    same(p, model, ())


def test_twelve_branches_in_a_row(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q
        n = "none"
        for i in range(12):
            s += sgl.select("c", ["yes", "no"])
            if s["c"] == "yes":
                s += "1" + sgl.gen(f"g{i}", max_tokens=1, temperature=1.0)
                n = s[f"g{i}"] + "!"
            s += "." + sgl.gen("z", max_tokens=1, temperature=1.0)
        return n

    same(p, model, ("a",), ("b",), ("c",), whole=True)
    compiled = p.compile("a")
    assert compiled.paths == 1
    assert sum(1 for _ in compiled.stages["prompt"].walk()) < 12 * 20  # linear


def test_arms_that_rejoin(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        word, kind, late = "w", None, "late"
        s += q + sgl.select("c", ["a", "b", "c"])
        if s["c"] == "a":
            with s.user():
                s += "A" + sgl.gen("x", max_tokens=2)
            word = s["x"]
        elif s["c"] == "b":
            s += sgl.user("B")
            word, kind = "b" + word, "K"
        else:
            s += sgl.user("other")
            temporary = s["c"] + "t"
            s += temporary
        s += sgl.assistant(word + sgl.gen("y", max_tokens=2))
        forks = s.fork(2)
        if "e" in s["y"]:
            forks[0] += "e"
            s += "e" + sgl.select("d", ["1", "2"])
        forks += sgl.gen("f", max_tokens=2, temperature=1.0)
        s += forks[0]["f"] + forks[1]["f"] + sgl.gen("z", max_tokens=2, temperature=1.0)
        if kind is None:
            s += late
        return word, kind

    same(p, model, *((c,) for c in "abcdefghijkl"), whole=True)


def test_arms_that_do_not_rejoin(model: Any) -> None:
    @sgl.program
    def lists(s: Any) -> Any:
        out = []
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "a":
            out.append("one")
        else:
            out += ["two"]
        s += "".join(out) + sgl.gen("a", max_tokens=2)
        return out

    @sgl.program
    def hosts(s: Any) -> Any:
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "a":
            s += tool("A")
        else:
            s += tool("B")
        s += tool("C") + sgl.gen("a", max_tokens=2)

    @sgl.program
    def unbound(s: Any) -> Any:
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "zz":
            word = "bound"
        s += word

    @sgl.program
    def one_arm(s: Any) -> Any:
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "zz":
            s += sgl.gen("only", max_tokens=2)
        s += "only" if "only" in s else "none"

    same(lists, model, (), whole=True)
    same(hosts, model, (), whole=True)
    same(one_arm, model, ())
    for mode in ("eager", "compiled"):
        with pytest.raises(UnboundLocalError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unbound.run(backend=model, mode=mode)


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


def test_operators_on_host_values(model: Any) -> None:
    def give(x: Any) -> Any:
        return x

    @sgl.program
    def p(s: Any) -> Any:
        s += "x"
        n, d, items = give(5), give({"a": 1}), give(["p", "q"])
        it = iter(items)
        s += next(it) + next(it) + str(sorted({**d, "b": 2}))
        return [n**2, 2**n, 7 // n, 7 / n, 7 % n, n & 4, n | 8, n ^ 1, n << 1, n >> 1, ~n, +n, -n,
                abs(n), d | {"c": 3}, "pqrs"[n - 4], range(9)[n], "z" * n, [1] * n, n > 3, n == 5]

    same(p, model, ())


def test_paths_that_no_choice_takes_are_not_explored(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.select("c", ["a", "b", "c"])
        if s["c"] == "a":
            s += sgl.gen("word", max_tokens=2)
        elif not s["c"] != "b":
            s["word"] = "B"
        elif "c" == s["c"]:
            s["word"] = "C"
        if s["c"] == "zz":
            return "never"
        return s["word"]

    same(p, model, *((c,) for c in "abcdef"), whole=True)

    @sgl.program
    def returns(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.select("c", ["a", "b", "c"])
        if s["c"] == "a":
            return "A"
        if s["c"] == "b":
            return "B"
        if s["c"] == "c":
            return "C"
        return s["never"]

    same(returns, model, *((c,) for c in "abcdef"), whole=True)
    assert returns.compile("x").paths == 3


def test_fullgraph_refuses_breaks(model: Any) -> None:
    @sgl.program(fullgraph=True)
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2, ignore_eos=True)
        for c in s["a"]:
            s += c

    with pytest.raises(sgl.SglcError, match="SGLC110"):
        p.run(backend=model)


def test_reads_inside_arms(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.select("c", ["yes", "no"]) + sgl.gen("v", max_tokens=2)
        with s.user():
            if s["c"] == "yes":
                s += sgl.gen("w", max_tokens=2)
                s += s.text()[:2]
                s += "a" + str(s.get_meta_info("c") is None)
                s.sync()
        s += tool("after")
        s += sgl.gen("z", max_tokens=2)

    same(p, model, *((c,) for c in "abcdef"), whole=True)


def test_a_merged_branch_before_an_explored_one(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "Q" + q + sgl.select("c", ["a", "b"])
        kept = s
        if s["c"] == "a":
            s += sgl.select("d", ["p", "q"])
        if s["c"] == "a":
            s += sgl.assistant(q)
            with s.var_scope("z"):
                s += sgl.select("e", ["A" + s["c"], "B"])
        kept += sgl.gen("end", max_tokens=2, temperature=1.0)
        return s.text()

    same(p, model, *((c,) for c in "abcdefgh"), whole=True)
