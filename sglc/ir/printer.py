"""The text form of IR.  `parser.parse` reads it back to an equal module.

Grammar in short (the full one is in parser.py): one op a line, regions in braces, a note in
square brackets that starts with one of `= ~ < > #` and is skipped by the parser, and the place
as a trailing comment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sglc.errors import Place
from sglc.ir.literals import quote, write
from sglc.ir.module import Attr, Block, Module, Op, Operand, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.signatures import INFERRED, class_at
from sglc.ir.types import Type

Note = Callable[[Op], "str | None"]

_LETTERS = {
    "prompt": "p", "kv": "k", "text": "t", "choice": "c", "bool": "b", "int": "n", "float": "f",
    "list": "l", "json": "j", "any": "v", "image": "g", "scores": "s", "meta": "m", "ids": "i",
}
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYMBOL = re.compile(r"\w+(?:\.\w+)*")
# A file name that can stand bare in a place comment.
_BARE_FILE = re.compile(r'[^\s"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]'
                        r'(?:[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*'
                        r'[^\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff])?')


def print_module(m: Module, *, locs: bool = True, notes: Note | None = None,
                 elide: int | None = None) -> str:
    """The text of a module, programs apart by an empty line.

    locs: write places.  notes: a remark for each op, shown in brackets and ignored when parsed.
    elide: shorten longer texts; for humans only, such text does not parse.
    """
    return "\n".join(print_program(p, locs=locs, notes=notes, elide=elide)
                     for p in m.programs.values())


def print_program(p: Program, *, locs: bool = True, notes: Note | None = None,
                  elide: int | None = None) -> str:
    """The text of one program, ending in a newline; options as for `print_module`."""
    return _Printer(p, locs, notes, elide).text()


def value_names(p: Program) -> dict[Value, str]:
    """The name that the text form gives each value of a program, with its `%`.

    Names come from the hints, made unique; arguments keep theirs exactly.  Parsing and naming
    again changes nothing.
    """
    names: dict[Value, str] = {}
    taken: set[str] = set()
    counters: dict[str, int] = {}

    def free(base: str, start: int) -> str:
        number = counters.get(base, start)
        while f"{base}{number}" in taken:
            number += 1
        counters[base] = number + 1
        return f"{base}{number}"

    def add(value: Value, exact: bool = False) -> None:
        hint = value.name if exact else re.sub(r"\W+", "_", value.name)
        if hint or exact:
            name = hint if hint not in taken else free(f"{hint}_", 1)
        else:
            name = free(_LETTERS.get(value.type.name, "v"), 0)
        taken.add(name)
        names[value] = f"%{name}" if _WORD.fullmatch(name) else f"%{quote(name)}"

    for arg in p.args:
        add(arg, exact=True)
    for op in p.walk():
        for result in op.results:
            add(result)
        for region in op.regions:
            for arg in region.args:
                add(arg)
    return names


def print_type(t: Type) -> str:
    """The text form of a type."""
    if not t.args:
        return f"!{t.name}"
    inner = ", ".join(quote(a) if isinstance(a, str) else print_type(a) for a in t.args)
    return f"!{t.name}<{inner}>"


class _Printer:
    def __init__(self, program: Program, locs: bool, notes: Note | None,
                 elide: int | None) -> None:
        self.program = program
        self.locs = locs
        self.notes = notes
        self.elide = elide
        self.names = value_names(program)
        self.lines: list[str] = []

    def text(self) -> str:
        p = self.program
        symbol = p.name if _SYMBOL.fullmatch(p.name) else quote(p.name)
        head = f"program @{symbol}{self.args(p.body, always=True)}"
        if p.returns:
            head += f" returns ({', '.join(map(quote, p.returns))})"
        if p.attrs:
            head += f" attrs {self.attrs(p.attrs)}"
        self.lines.append(head + " {" + self.place(p.loc))
        self.block(p.body, "  ")
        self.lines.append("}\n")
        return "\n".join(self.lines)

    def args(self, block: Block, always: bool = False) -> str:
        if not block.args and not always:
            return ""
        inner = ", ".join(f"{self.names[a]}: {print_type(a.type)}" for a in block.args)
        return f"({inner})"

    def attrs(self, attrs: Mapping[str, Attr]) -> str:
        inner = ", ".join([
            f"{name if _NAME.fullmatch(name) else quote(name)} = {write(attrs[name], self.elide)}"
            for name in sorted(attrs)])
        return "{" + inner + "}"

    def place(self, loc: Place | None) -> str:
        if loc is None or not self.locs:
            return ""
        file = loc.file if _BARE_FILE.fullmatch(loc.file) else quote(loc.file)
        return f"  // {file}:{loc.line}:{loc.col}"

    def operand(self, operand: Operand) -> str:
        if isinstance(operand, Value):
            # A value from elsewhere: the IR is malformed, but can still be looked at.
            return self.names.get(operand) or f"%?{operand.name}"
        return write(operand.value, self.elide)

    def result(self, op: Op, result: Value) -> str:
        definition = OPS.get(op.name)
        kind = class_at(definition.results, result.index) if definition else None
        if kind is not None and INFERRED.get(kind) == result.type:
            return self.names[result]
        return f"{self.names[result]}: {print_type(result.type)}"

    def head(self, op: Op) -> str:
        """Everything of an op before its regions."""
        text = op.name
        if op.operands:
            text += " " + ", ".join([self.operand(o) for o in op.operands])
        if op.results:
            text = ", ".join([self.result(op, r) for r in op.results]) + " = " + text
        return f"{text} {self.attrs(op.attrs)}" if op.attrs else text

    def note(self, op: Op) -> str:
        text = self.notes(op) if self.notes is not None else None
        if not text:
            return ""
        text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).replace("]", ")")
        return f"  [{text}]" if text[0] in "=~<>#" else f"  [# {text}]"

    def block(self, block: Block, indent: str) -> None:
        for op in block.ops:
            end = self.note(op) + self.place(op.loc)
            if not op.regions:
                self.lines.append(f"{indent}{self.head(op)}{end}")
            elif op.name == "prompt.switch":
                self.cases(op, indent, end)
            else:
                self.bodies(op, indent, end)

    def cases(self, op: Op, indent: str, end: str) -> None:
        self.lines.append(f"{indent}{self.head(op)} {{{end}")
        for index, region in enumerate(op.regions):
            last = index == len(op.regions) - 1
            default = last and region.label == "default"
            label = "default" if default else f"case {quote(region.label)}"
            args = self.args(region)
            self.lines.append(f"{indent}  {label}{' ' if args else ''}{args} {{")
            self.block(region, indent + "    ")
            self.lines.append(f"{indent}  }}")
        self.lines.append(f"{indent}}}")

    def bodies(self, op: Op, indent: str, end: str) -> None:
        start = f"{indent}{self.head(op)}"
        words = ("then", "else") if op.name == "prompt.if" else ()
        for index, region in enumerate(op.regions):
            word = words[index] if index < len(words) else ""
            label = quote(region.label) if region.label else ""
            parts = [start, word, label, self.args(region), "{"]
            self.lines.append(" ".join(p for p in parts if p) + end)
            self.block(region, indent + "  ")
            start, end = f"{indent}}}", ""
        self.lines.append(start)
