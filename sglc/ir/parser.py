"""Reads the text form of IR: names become values, operations are looked up in the op table.

    program @name(%arg: !text) returns ("x") attrs {stage = "prompt"} {  // file.py:1:1
      %p0 = prompt.root
      %p1, %x: !text, %m0 = prompt.gen %p0 {name = "x", path = [0]}  [~ 20 tok]  // file.py:2:5
      prompt.return %p1
    }

One op a line.  A trailing `// file:line:col` is the op's place; other comments, and notes in
brackets that start with one of `= ~ < > #`, are skipped.  Types of results are written where the
op table does not tell them.  The text is checked for form only: `verify` checks the rest.
"""

from __future__ import annotations

import difflib
import re

from lark import Token

from sglc.errors import IRError, Place, excerpt, marked
from sglc.ir.literals import unquote
from sglc.ir.module import Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.ops import OPS, OpDef
from sglc.ir.signatures import INFERRED, MAX_REGIONS, class_at, count_fits, count_text
from sglc.ir.syntax import Fault, Header, Operation, Region, read
from sglc.ir.types import Type

_PLACE = re.compile(r"//[ \t]*(?:(\"(?:[^\"\\]|\\.)*\")|(.*?)):(-?[0-9]+)(?::(-?[0-9]+))?[ \t]*")

_FORMS = {"prompt.if": "if", "prompt.switch": "switch"}
_FORM_TEXTS = {"plain": "{ ... }", "if": "then { ... } else { ... }",
               "switch": '{ case "x" { ... } default { ... } }'}


def parse(text: str, *, file: str = "<text>") -> Module:
    """The module that `text` describes.

    file: what errors call the text.  Raises IRError SGLC202 with the place, what was expected,
    and the line.
    """
    try:
        module = Module()
        for header in read(text):
            program = _Reader().program(header)
            if program.name in module.programs:
                raise Fault(header.symbol, f"program @{program.name} is defined twice")
            module.add(program)
        return module
    except Fault as fault:
        place = Place(file, fault.line, fault.column)
        lines = [] if excerpt(place) else _marked(text, fault)
        raise IRError("SGLC202", "\n".join([fault.what, *lines]), place=place) from None


def _marked(text: str, fault: Fault) -> list[str]:
    """The line of a text that is in no file, with a caret."""
    lines = text.split("\n")
    source = lines[fault.line - 1] if fault.line <= len(lines) else ""
    return marked(source, fault.line, fault.column)


class _Reader:
    """Builds one program."""

    def __init__(self) -> None:
        self.visible: dict[str, Value] = {}
        self.defined: dict[str, Token] = {}

    def program(self, header: Header) -> Program:
        symbol = header.symbol[1:]
        name = unquote(symbol) if symbol.startswith('"') else symbol
        program = Program(name, [(_name(token), kind) for token, kind in header.args],
                          header.returns, _place(header.place), header.attrs)
        for (token, _), value in zip(header.args, program.args, strict=True):
            self.define(token, value)
        for operation in header.ops:
            program.body.append(self.op(operation, 0))
        return program

    def define(self, token: Token, value: Value) -> None:
        name = value.name
        if name in self.defined:
            line = (self.defined[name].line or 1) - 1
            raise Fault(token, f"{token} is defined twice (first in line {line})")
        self.defined[name] = token
        self.visible[name] = value

    def op(self, operation: Operation, depth: int) -> Op:
        definition = OPS.get(operation.name)
        if definition is None:
            raise _unknown(operation.name)
        for what, classes, given in (("operands", definition.operands, operation.operands),
                                     ("results", definition.results, operation.results)):
            if not count_fits(classes, len(given)):
                raise Fault(operation.name, f"{operation.name} has {count_text(classes)} {what}, "
                                            f"{len(given)} given")
        form = _FORMS.get(operation.name, "plain")
        if operation.form not in ("", form):
            raise Fault(operation.name, f"the regions of {operation.name} are written "
                                        f"{_FORM_TEXTS[form]}")
        operands = [self.operand(o) for o in operation.operands]
        types = [kind or _inferred(definition, index, token)
                 for index, (token, kind) in enumerate(operation.results)]
        regions = [self.region(r, operation.name, depth + 1) for r in operation.regions]
        op = Op(str(operation.name), operands, operation.attrs, types, regions,
                _place(operation.place), [_name(token) for token, _ in operation.results])
        for (token, _), value in zip(operation.results, op.results, strict=True):
            self.define(token, value)
        return op

    def operand(self, written: object) -> Operand:
        if not isinstance(written, Token):
            return Lit(written)
        name = _name(written)
        value = self.visible.get(name)
        if value is None:
            where = ("is defined in a region that ended" if name in self.defined
                     else "is not defined")
            raise Fault(written, f"{written} {where}")
        return value

    def region(self, region: Region, at: Token, depth: int) -> Block:
        if depth > MAX_REGIONS:
            raise Fault(at, f"regions are nested more than {MAX_REGIONS} deep")
        outside = set(self.visible)
        block = Block([(_name(token), kind) for token, kind in region.args], region.label)
        for (token, _), value in zip(region.args, block.args, strict=True):
            self.define(token, value)
        for operation in region.ops:
            block.append(self.op(operation, depth))
        for name in self.visible.keys() - outside:
            del self.visible[name]
        return block


def _name(token: Token) -> str:
    return unquote(token[1:]) if token[1] == '"' else token[1:]


def _inferred(definition: OpDef, index: int, token: Token) -> Type:
    kind = class_at(definition.results, index)
    if kind is None or kind not in INFERRED:
        raise Fault(token, f"the type of {token} must be written: {token}: !type")
    return INFERRED[kind]


def _unknown(name: Token) -> Fault:
    near = difflib.get_close_matches(name, OPS, n=1)
    return Fault(name, f"unknown operation {name}" + (f"; is it {near[0]}?" if near else ""))


def _place(token: Token | None) -> Place | None:
    if token is None:
        return None
    match = _PLACE.fullmatch(token)
    assert match is not None, token
    quoted, file, line, column = match.groups()
    try:
        return Place(unquote(quoted) if quoted else file, int(line), int(column or 1))
    except ValueError:
        raise Fault(token, "this place has too many digits") from None
