"""Prompt states in a program: forks, scopes and variables, and helpers that are given one."""

from __future__ import annotations

from typing import Any

import sglc as sgl
from tests.footguns.both_modes import same


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


def test_a_helper_that_returns_an_expression(model: Any) -> None:
    def ask(q: Any) -> Any:
        return sgl.user(q) + sgl.assistant(sgl.gen("a", max_tokens=2))

    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += ask(q)
        s += ask(s["a"] + "?")

    same(p, model, ("x",), whole=True)
