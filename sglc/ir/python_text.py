"""Python source for values: literals, pure operations, f-strings, generation parameters.

Knows no program: how a value that is no literal is written is for the caller to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sglc.ir.module import Lit, Op, Operand
from sglc.ir.ops import CONSTRAINT_ATTRS

BINARY = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+",
          "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
          "concat": "+", "repeat": "*"}
_CALLS = frozenset({"len", "int", "float", "str", "repr", "bool", "abs", "sorted",
                    "max", "min", "sum", "any", "all"})
_CONVERSIONS = {"r": "repr", "s": "str", "a": "ascii"}
_DTYPES = frozenset({"int", "float", "bool", "str"})


class Source(NamedTuple):
    """Source of an expression.  atomic: it needs no parentheses inside another one."""

    text: str
    atomic: bool = True

    def inner(self) -> str:
        return self.text if self.atomic else f"({self.text})"


Write = Callable[[Operand], Source]
"""How operands are written."""


def text_literal(text: str) -> str:
    """A string literal, in double quotes unless single ones save escapes."""
    written = repr(text)
    if written[0] == "'" and '"' not in text:
        written = '"' + written[1:-1].replace("\\'", "'") + '"'
    return written


def literal(value: Any) -> Source:
    """A literal of plain data (tuples stay tuples)."""
    if isinstance(value, str):
        return Source(text_literal(value))
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return Source(f'float("{value}")')
    if isinstance(value, tuple):
        items = ", ".join([literal(v).text for v in value])
        return Source(f"({items},)" if len(value) == 1 else f"({items})")
    return Source(repr(value), not repr(value).startswith("-"))


def regex_literal(pattern: str) -> str:
    """A pattern as a raw string where one can say it."""
    raw = (not pattern.endswith("\\") and pattern.isprintable() and "\\" in pattern
           and not ('"' in pattern and "'" in pattern))
    if not raw:
        return text_literal(pattern)
    return f"r'{pattern}'" if '"' in pattern else f'r"{pattern}"'


def bag_call(operands: Sequence[Operand], write: Write) -> str:
    """The call of `sgl.bag` for a separator and parts."""
    separator, *parts = [write(o).text for o in operands]
    words = [*parts, *([] if operands[0] == Lit("") else [f"sep={separator}"])]
    return f"sgl.bag({', '.join(words)})"


def compute(op: Op, write: Write) -> Source:
    """The expression of a `prompt.compute`; KeyError for an unknown function."""
    fn = op.attrs["fn"]
    if fn == "bag.text":  # the batch's counts have no form in the language
        return Source(bag_call(op.operands[1:], write))
    args = [write(o) for o in op.operands]
    if fn in BINARY:
        left, right = args
        return Source(f"{left.inner()} {BINARY[fn]} {right.inner()}", False)
    if fn in _CALLS:
        return Source(f"{fn}({args[0].text})")
    if fn.startswith("text."):
        receiver, *rest = args
        return Source(f"{receiver.inner()}.{fn[5:]}({', '.join([a.text for a in rest])})")
    if fn == "tuple":
        items = ", ".join([a.text for a in args])
        return Source(f"({items},)" if len(args) == 1 else f"({items})")
    if fn == "set":
        return Source(f"{{{', '.join([a.text for a in args])}}}" if args else "set()")
    if fn == "dict":
        pairs = zip(args[::2], args[1::2], strict=True)
        return Source("{" + ", ".join([f"{k.text}: {v.text}" for k, v in pairs]) + "}")
    if fn == "slice":
        ends = ["" if isinstance(o, Lit) and o.value is None else a.text
                for o, a in zip(op.operands[1:], args[1:], strict=True)]
        return Source(f"{args[0].inner()}[{':'.join(ends[:2])}{':' + ends[2] if ends[2] else ''}]")
    forms = {"not": "not {0}", "neg": "-{0}", "is_none": "{0} is None", "contains": "{1} in {0}",
             "getitem": "{0}[{1}]", "pick": "{1} if {0} else {2}",
             "pick_equal": "{2} if {0} == {1} else {3}",
             "pick_unequal": "{2} if {0} != {1} else {3}"}
    text = forms[fn].format(*[a.text if fn == "getitem" and i else a.inner()
                              for i, a in enumerate(args)])
    return Source(text, fn == "getitem")


FormatPart = str | tuple[Operand, str, str]
"""A part of an f-string: a text, or a value with its conversion and format."""


def format_text(parts: Sequence[FormatPart], write: Write,
                name: Callable[[str], str]) -> Source:
    """An f-string.

    name: gives an expression a name in a statement before, where an f-string cannot hold it.
    """
    pieces: list[tuple[str, bool]] = []
    for part in parts:
        if isinstance(part, str):
            pieces.append((part, False))
            continue
        operand, conversion, spec = part
        value = write(operand).text
        if re.search(r"""['"{}\\]""", spec):
            value = f"{_CONVERSIONS[conversion]}({value})" if conversion else value
            value, conversion, spec = f"format({value}, {text_literal(spec)})", "", ""
        if re.search(r"""['\\#\n]|^[{]|:=|lambda""", value):
            value = name(value)
        end = (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        pieces.append((f"{{{value}{end}}}", True))
    double = not any('"' in piece for piece, _ in pieces)
    written = []
    for piece, is_value in pieces:
        if not is_value:  # escaped as in single quotes, which a double quote makes sure of
            piece = repr('"' + piece)[2:-1].replace("{", "{{").replace("}", "}}")
            if double:
                piece = piece.replace("\\'", "'")
        written.append(piece)
    return Source(f'f"{"".join(written)}"' if double else f"f'{''.join(written)}'")


def gen_call(name: str | None, attrs: Mapping[str, Any]) -> str:
    """`sgl.gen(...)` into a variable, with the parameters that the op gives."""
    words = [] if name is None else [text_literal(name)]
    for key, value in attrs.items():
        if key in ("name", "path", "reader", *CONSTRAINT_ATTRS):
            continue
        if key == "dtype" and value in _DTYPES:
            written = value
        elif key == "regex":
            written = regex_literal(value)
        elif isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], str):
            written = text_literal(value[0])
        elif isinstance(value, tuple):
            written = f"[{', '.join([literal(v).text for v in value])}]"
        else:
            written = literal(value).text
        words.append(f"{key}={written}")
    return f"sgl.gen({', '.join(words)})"


def select_call(name: str | None, op: Op, write: Write) -> str:
    """`sgl.select(...)` into a variable, over the op's choices."""
    choices = ", ".join([write(o).text for o in op.operands[1:]])
    words = ["None" if name is None else text_literal(name), f"[{choices}]"]
    method = op.attrs.get("method")
    if method not in (None, "token_length_normalized"):
        words.append(f"choices_method={text_literal(method)}")
    return f"sgl.select({', '.join(words)})"
