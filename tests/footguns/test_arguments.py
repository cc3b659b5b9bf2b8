"""Arguments of programs: a trace for one is used for another only where it is right."""

from __future__ import annotations

from typing import Any

import sglc as sgl
from tests.footguns.both_modes import same


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
