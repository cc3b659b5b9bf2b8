"""Expressions as Python source: what is written evaluates to what was meant."""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglc.ir import compute
from sglc.ir.module import Block, Lit, Op, Value
from sglc.ir.python_source import Add, Branch, Line, With, render
from sglc.ir.python_text import (
    Source,
    format_text,
    gen_call,
    literal,
    regex_literal,
    text_literal,
)
from sglc.ir.python_text import compute as write_compute
from sglc.ir.types import ANY, TEXT

texts = st.one_of(st.text(max_size=8), st.text("{}'\"\\\nr#é\ud800", max_size=8))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False,
                                                                 allow_infinity=False), texts),
    lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@given(texts)
def test_text_literals(text: str) -> None:
    assert ast.literal_eval(text_literal(text)) == text
    assert "\n" not in text_literal(text)


@given(plain)
def test_literals(value: Any) -> None:
    written = ast.literal_eval(literal(value).text)
    assert repr(written) == repr(value)


def test_floats_without_a_literal() -> None:
    assert literal(math.nan).text == 'float("nan")'
    assert literal(-math.inf).text == 'float("-inf")'


@given(st.text("ab\\'\"{}.[]é\n", max_size=8))
def test_regex_literals(pattern: str) -> None:
    assert ast.literal_eval(regex_literal(pattern)) == pattern


def test_regex_literals_are_raw_where_it_helps() -> None:
    assert regex_literal(r"\d+") == 'r"\\d+"'
    assert regex_literal(r'"\w*"') == "r'\"\\w*\"'"
    assert regex_literal("[0-9]+") == '"[0-9]+"'


def evaluate(source: str, **names: Any) -> Any:
    return eval(compile(ast.parse(source, mode="eval"), "<test>", "eval"), {}, names)


@given(st.lists(st.one_of(texts, st.tuples(texts, st.sampled_from(["", "s", "r", "a"]),
                                           st.sampled_from(["", ">9", "'^7", "<4"]))),
                max_size=4))
def test_f_strings(parts: list[Any]) -> None:
    """Whatever stands in the values' own source: here their literals."""
    values = [p[0] for p in parts if not isinstance(p, str)]
    numbered = iter(range(len(values)))
    template = tuple(p if isinstance(p, str) else (next(numbered), p[1], p[2]) for p in parts)
    named: dict[str, Any] = {}

    def name(expression: str) -> str:
        named[f"t{len(named)}"] = evaluate(expression, **named)
        return f"t{len(named) - 1}"

    written = format_text([p if isinstance(p, str) else (Lit(p[0]), p[1], p[2]) for p in parts],
                          lambda o: literal(o.value), name)  # type: ignore[union-attr]
    assert evaluate(written.text, **named) == compute.run_format(template, values)


@pytest.mark.parametrize(("fn", "args"), [
    ("eq", (1, 2)), ("add", (-1, 2)), ("sub", (1, -2)), ("pow", (-2, 2)), ("neg", (-3,)),
    ("not", (0,)), ("is_none", (None,)), ("contains", ("abc", "b")), ("getitem", ("abc", -1)),
    ("slice", ("abcdef", 1, None, None)), ("slice", ("abcdef", None, -1, 2)), ("len", ("abc",)),
    ("slice", ("abcdef", None, None, -1)), ("text.strip", (" a ",)), ("concat", ("a", "b")),
    ("text.replace", ("aab", "a", "c", 1)), ("repeat", ("ab", 3)), ("int", ("12",)),
    ("set", (1, 2)), ("set", ()), ("tuple", (1,)), ("tuple", ()), ("dict", ("a", 1, "b", 2)),
    ("mod", (7, -3)), ("bool", ("",)), ("abs", (-4,)), ("text.upper", ("a",)),
])
def test_operations(fn: str, args: tuple[Any, ...]) -> None:
    op = Op("prompt.compute", [Lit(a) for a in args], {"fn": fn}, (ANY,))
    written = write_compute(op, lambda o: literal(o.value))  # type: ignore[union-attr]
    assert evaluate(written.text) == compute.function(fn)(*args)
    assert evaluate(f"[{written.inner()}][0]") == compute.function(fn)(*args)
    with pytest.raises(KeyError):
        write_compute(Op("prompt.compute", (), {"fn": "frobnicate"}, (ANY,)),
                      lambda o: Source(""))


def test_every_known_operation_can_be_written() -> None:
    value = Value(TEXT, Block(), 0, "x")
    for fn in (*compute._OPERATORS, *(f"text.{m}" for m in compute._TEXT_METHODS)):
        count = {"slice": 4, "bag.text": 3, "pick": 3, "pick_equal": 4, "pick_unequal": 4,
                  "tuple": 2, "dict": 2, "set": 2}.get(fn, 2 if fn in (
            "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod",
            "pow", "concat", "repeat", "contains", "getitem") else 1)
        op = Op("prompt.compute", [value] * count, {"fn": fn}, (ANY,))
        ast.parse(write_compute(op, lambda o: Source("x")).text, mode="eval")


def test_generations() -> None:
    assert gen_call("a", {"path": (0,), "max_tokens": 4, "stop": ("\n",), "dtype": "int"}) == (
        'sgl.gen("a", max_tokens=4, stop="\\n", dtype=int)')
    assert gen_call(None, {"path": (0,), "stop": ("a", "b"), "stop_token_ids": (1,),
                           "ignore_eos": True}) == (
        'sgl.gen(stop=["a", "b"], stop_token_ids=[1], ignore_eos=True)')


def test_layout() -> None:
    statements = [
        Add("s", 'sgl.user_begin()', role="user", opens=True), Add("s", '"Hello"', literal="Hello"),
        Add("s", "sgl.user_end()", role="user"),
        Add("s", '"A: "', literal="A: "), Add("s", 'sgl.gen("a")'), Add("s", "x or y", False),
        Add("f", '"b"', literal="b"),
        Branch([("c", [Line("a")]), (None, [Branch([("d", []), (None, [Line("b")])])])]),
        Branch([("c", []), (None, [Line("b")])]),
        With("s.var_scope('z')", []),
        Add("s", text_literal("word " * 30), literal="word " * 30),
    ]
    assert "\n".join(render(statements, 1)) == """\
    s += sgl.user("Hello")
    s += "A: " + sgl.gen("a")
    s += x or y
    f += "b"
    if c:
        a
    elif not (d):
        b
    if not (c):
        b
    with s.var_scope('z'):
        pass
    s += (
        "word word word word word word word word word word word word word word word "
        "word word word word word word word word word word word word word word word ")"""
