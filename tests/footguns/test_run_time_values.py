"""Values that only the run knows, and what Python does with them."""

from __future__ import annotations

import json
from typing import Any

import sglc as sgl
from tests.footguns.both_modes import same


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
