"""The grammar of the IR's text form: text to plain tuples, and syntax errors.

Knows the notation only; names and operations get their meaning in parser.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from sglc.ir.literals import MAX_NESTED, read_int, unquote
from sglc.ir.signatures import type_problem
from sglc.ir.types import Type

_GRAMMAR = r"""
start: _NL program*

program: "program" symbol args [returns] ["attrs" attrs] "{" [PLACE] _NL ops "}" _NL
?symbol: SYMBOL | SYMBOL_STRING
args: "(" [arg ("," arg)*] ")"
arg: VALUE ":" kind
returns: "returns" "(" [STRING ("," STRING)*] ")"

ops: op*
op: [results "="] OP [operands] [attrs] [PLACE] _NL
  | [results "="] OP [operands] [attrs] body
results: result ("," result)*
result: VALUE [":" kind]
operands: operand ("," operand)*
?operand: VALUE | literal

?body: [args] "{" [PLACE] _NL ops "}" _NL                           -> plain_body
  | then otherwise                                                  -> if_body
  | "{" [PLACE] _NL case+ "}" _NL                                   -> switch_body
then: "then" [STRING] [args] "{" [PLACE] _NL ops "}"
otherwise: "else" [STRING] [args] "{" _NL ops "}" _NL
case: "case" STRING [args] "{" _NL ops "}" _NL
  | "default" [args] "{" _NL ops "}" _NL                            -> default

attrs: "{" attr ("," attr)* "}"
attr: (NAME | STRING) "=" literal

?literal: STRING                                                    -> string
  | INT                                                             -> integer
  | FLOAT                                                           -> decimal
  | "true"                                                          -> true
  | "false"                                                         -> false
  | "null"                                                          -> null
  | OPEN "]"                                                        -> items
  | OPEN literal ("," literal)* "]"                                 -> items

kind: TYPE
  | TYPE "<" kind_arg ("," kind_arg)* ">"
?kind_arg: STRING                                                   -> string
  | kind

VALUE: /%(?:\w+|"[^"\\\x00-\x1f]*(?:\\[^\n][^"\\\x00-\x1f]*)*")/
SYMBOL: /@\w+(?:\.\w+)*/
SYMBOL_STRING: /@"[^"\\\x00-\x1f]*(?:\\[^\n][^"\\\x00-\x1f]*)*"/
OP.2: /[A-Za-z_]\w*(?:\.\w+)+/
NAME: /[A-Za-z_][A-Za-z0-9_]*/
TYPE: /![A-Za-z_]\w*/
STRING: /"[^"\\\x00-\x1f]*(?:\\(?:["\\\/bfnrt]|uHEX4|u\{HEX4\})[^"\\\x00-\x1f]*)*"/
FLOAT.3: /-?(?:[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|inf\b)|nan\b/
INT.2: /-?(?:0x[0-9a-f]+|[0-9]+)/
PLACE.3: /\/\/[^\n]*?:-?[0-9]+[ \t]*(?=\r?\n)/
_COMMENT.2: /\/\/[^\n]*/
_NOTE.4: /\[[=~<>#][^\]\n]*\]/
OPEN: "["
_NL: /(?:\r?\n[ \t]*(?:\/\/[^\n]*)?)+/
_SPACE: /[ \t]+/
%ignore _SPACE
%ignore _COMMENT
%ignore _NOTE
""".replace("HEX4", "[0-9a-fA-F]{4}")

_READABLE = {
    "VALUE": "a value (%name)", "SYMBOL": "a program name (@name)", "OP": "an operation",
    "NAME": "an attribute name", "TYPE": "a type (!name)", "STRING": "a string",
    "INT": "an integer", "FLOAT": "a float", "PLACE": "a place (// file:line:col)",
    "_NL": "the end of the line", "$END": "the end of the text", "OPEN": "'['", "LBRACE": "'{'",
    "RBRACE": "'}'", "LPAR": "'('", "RPAR": "')'", "RSQB": "']'",
    "COMMA": "','", "COLON": "':'", "EQUAL": "'='", "LESSTHAN": "'<'", "MORETHAN": "'>'",
    "SYMBOL_STRING": "",
}


class Region(NamedTuple):
    """A region as written."""

    label: str
    args: list[tuple[Token, Type]]
    ops: list[Operation]


class Body(NamedTuple):
    """The regions of an op as written: in which form, and the place on their first line."""

    form: str  # "plain", "if" or "switch"
    place: Token | None
    regions: list[Region]


class Operation(NamedTuple):
    """An op as written; operands are tokens of values, or plain data; form as for Body."""

    results: list[tuple[Token, Type | None]]
    name: Token
    operands: list[Any]
    attrs: dict[str, Any]
    place: Token | None
    regions: list[Region]
    form: str


class Header(NamedTuple):
    """A program as written."""

    symbol: Token
    args: list[tuple[Token, Type]]
    returns: tuple[str, ...]
    attrs: dict[str, Any]
    place: Token | None
    ops: list[Operation]


class Fault(Exception):
    """Something is wrong at a token, or at a (line, column).

    line, column: 1-based, of the text that was given to `read`.
    """

    def __init__(self, at: Token | tuple[int, int], what: str) -> None:
        super().__init__(what)
        line, column = at if isinstance(at, tuple) else (at.line or 1, at.column or 1)
        self.line = max(line - 1, 1)  # `read` puts a line break before the text
        self.column = max(column, 1)
        self.what = what


class _List(list[Any]):
    """A list literal and how deep it is, before it becomes a tuple."""

    depth = 1


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if type(value) is _List else value


@v_args(inline=True)
class _Tuples(Transformer):  # type: ignore[type-arg]
    def start(self, *programs: Header) -> list[Header]:
        return list(programs)

    def program(self, symbol: Token, args: list[tuple[Token, Type]],
                returns: tuple[str, ...] | None, attrs: dict[str, Any] | None,
                place: Token | None, ops: list[Operation]) -> Header:
        return Header(symbol, args, returns or (), attrs or {}, place, ops)

    def args(self, *args: tuple[Token, Type] | None) -> list[tuple[Token, Type]]:
        return [a for a in args if a is not None]

    def arg(self, value: Token, kind: Type) -> tuple[Token, Type]:
        return value, kind

    def returns(self, *names: Token | None) -> tuple[str, ...]:
        return tuple(unquote(n) for n in names if n is not None)

    def ops(self, *ops: Operation) -> list[Operation]:
        return list(ops)

    def op(self, results: list[tuple[Token, Type | None]] | None, name: Token,
           operands: list[Any] | None, attrs: dict[str, Any] | None,
           end: Body | Token | None) -> Operation:
        body = end if isinstance(end, Body) else Body("", end, [])
        return Operation(results or [], name, operands or [], attrs or {}, body.place,
                         body.regions, body.form)

    def results(self, *results: tuple[Token, Type | None]) -> list[tuple[Token, Type | None]]:
        return list(results)

    def result(self, value: Token, kind: Type | None) -> tuple[Token, Type | None]:
        return value, kind

    def operands(self, *operands: Any) -> list[Any]:
        return list(map(_frozen, operands))

    def plain_body(self, args: Any, place: Token | None, ops: list[Operation]) -> Body:
        return Body("plain", place, [Region("", args or [], ops)])

    def if_body(self, then: tuple[Token | None, Region], otherwise: Region) -> Body:
        return Body("if", then[0], [then[1], otherwise])

    def then(self, label: Token | None, args: Any, place: Token | None,
             ops: list[Operation]) -> tuple[Token | None, Region]:
        return place, Region(unquote(label) if label else "", args or [], ops)

    def otherwise(self, label: Token | None, args: Any, ops: list[Operation]) -> Region:
        return Region(unquote(label) if label else "", args or [], ops)

    def switch_body(self, place: Token | None, *cases: Region) -> Body:
        return Body("switch", place, list(cases))

    def case(self, label: Token, args: Any, ops: list[Operation]) -> Region:
        return Region(unquote(label), args or [], ops)

    def default(self, args: Any, ops: list[Operation]) -> Region:
        return Region("default", args or [], ops)

    def attrs(self, *attrs: tuple[Token, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for token, value in attrs:
            name = unquote(token) if token.type == "STRING" else str(token)
            if name in out:
                raise Fault(token, f"attribute {name} is given twice")
            out[name] = _frozen(value)
        return out

    def attr(self, name: Token, value: Any) -> tuple[Token, Any]:
        return name, value

    def string(self, token: Token) -> str:
        return unquote(token)

    def integer(self, token: Token) -> int:
        try:
            return read_int(token)
        except ValueError:
            raise Fault(token, "this integer is too long; write it in hexadecimal") from None

    def decimal(self, token: Token) -> float:
        return float(token)

    def true(self) -> bool:
        return True

    def false(self) -> bool:
        return False

    def null(self) -> None:
        return None

    def items(self, opening: Token, *items: Any) -> _List:
        out = _List(items)
        out.depth = 1 + max((i.depth for i in items if type(i) is _List), default=0)
        if out.depth > MAX_NESTED:
            raise Fault(opening, f"lists are nested more than {MAX_NESTED} deep")
        return out

    def kind(self, token: Token, *args: str | Type) -> Type:
        out = Type(token[1:], args)
        problem = type_problem(out)
        if problem is not None:
            raise Fault(token, problem)
        return out


@lru_cache(maxsize=1)
def _lark() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Tuples(), maybe_placeholders=True)


def read(text: str) -> list[Header]:
    """The programs of a text as written; raises Fault at the first syntax error."""
    lark = _lark()
    try:
        # A line break first, so that a comment on the first line is like any other.
        return lark.parse(f"\n{text}\n")  # type: ignore[return-value]
    except UnexpectedToken as error:
        found = "the end of the text" if error.token.type == "$END" else (
            "the end of the line" if error.token.type == "_NL" else repr(str(error.token)))
        raise Fault((error.line, error.column),
                    f"expected {_listed(error.expected)}, found {found}") from None
    except UnexpectedCharacters as error:
        what = f"expected {_listed(error.allowed or ())}, found {error.char!r}"
        if error.char == '"':
            what = "this string does not end, or has an invalid escape"
        raise Fault((error.line, error.column), what) from None


def _listed(terminals: Iterable[str]) -> str:
    names = sorted({_READABLE.get(t, f"'{t.lower()}'") for t in terminals} - {""})
    return names[0] if len(names) == 1 else "one of " + ", ".join(names)
