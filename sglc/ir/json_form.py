"""IR as plain JSON data, for tools: `from_json(to_json(m)) == m`.

Values are numbers, counted through a program in the order of definition.  Operands are
`{"value": n}` or `{"lit": x}`; lists stand for tuples; what JSON numbers cannot hold is
`{"float": "nan"}` or `{"int": "0x..."}`.  (JSON text itself merges two lone surrogates in a row
into one character; nothing else is lost on the way through it.)
"""

from __future__ import annotations

from typing import Any

from sglc.errors import IRError, Place
from sglc.ir.literals import MAX_NESTED, read_int, write
from sglc.ir.module import Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.signatures import MAX_REGIONS, type_problem
from sglc.ir.types import Type

VERSION = 1
Json = Any


def to_json(m: Module) -> dict[str, Json]:
    """A module as dicts, lists, texts, numbers, bools and None."""
    return {"version": VERSION, "programs": [_program(p) for p in m.programs.values()]}


def from_json(data: dict[str, Json]) -> Module:
    """The module that `to_json` wrote; raises IRError SGLC202 if the data is not of that form."""
    try:
        if data["version"] != VERSION:
            raise IRError("SGLC202", f"IR data of version {data['version']!r}, not {VERSION}")
        module = Module()
        for program in data["programs"]:
            module.add(_Reader().program(program))
        return module
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise IRError("SGLC202", f"the data is not IR: {type(error).__name__}: {error}") from None


def _program(p: Program) -> dict[str, Json]:
    numbers: dict[Value, int] = {}
    return {"name": p.name, "returns": list(p.returns), "loc": _place(p.loc),
            "attrs": _attrs(p.attrs), **_block(p.body, numbers)}


def _block(block: Block, numbers: dict[Value, int]) -> dict[str, Json]:
    for arg in block.args:
        numbers[arg] = len(numbers)
    return {"args": [_defined(a) for a in block.args],
            "ops": [_op(op, numbers) for op in block.ops]}


def _op(op: Op, numbers: dict[Value, int]) -> dict[str, Json]:
    for result in op.results:
        numbers[result] = len(numbers)
    out: dict[str, Json] = {"op": op.name}
    if op.operands:
        out["operands"] = [{"lit": _literal(o.value)} if isinstance(o, Lit)
                           else {"value": numbers[o]} for o in op.operands]
    if op.results:
        out["results"] = [_defined(r) for r in op.results]
    if op.attrs:
        out["attrs"] = _attrs(op.attrs)
    if op.loc is not None:
        out["loc"] = _place(op.loc)
    if op.regions:
        out["regions"] = [{"label": r.label, **_block(r, numbers)} for r in op.regions]
    return out


def _defined(value: Value) -> dict[str, Json]:
    return {"name": value.name, "type": _type(value.type)}


def _type(t: Type) -> dict[str, Json]:
    if not t.args:
        return {"name": t.name}
    return {"name": t.name, "args": [a if isinstance(a, str) else _type(a) for a in t.args]}


def _place(loc: Place | None) -> list[Json] | None:
    return None if loc is None else [loc.file, loc.line, loc.col]


def _attrs(attrs: dict[str, Any]) -> dict[str, Json]:
    return {name: _literal(attrs[name]) for name in sorted(attrs)}


def _literal(value: Any) -> Json:
    if isinstance(value, tuple):
        return [_literal(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return {"float": repr(value)}
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 53:
        return {"int": write(value)}
    return value


class _Reader:
    """Builds one program; checks only what building needs."""

    def __init__(self) -> None:
        self.values: list[Value] = []

    def program(self, data: dict[str, Json]) -> Program:
        program = Program(_text(data["name"]), [self.defined(a) for a in data["args"]],
                          [_text(r) for r in data["returns"]], self.place(data["loc"]),
                          self.attrs(data["attrs"]))
        self.values.extend(program.args)
        self.ops(program.body, data["ops"], 0)
        return program

    def ops(self, block: Block, ops: list[Json], depth: int) -> None:
        if depth > MAX_REGIONS:
            raise IRError("SGLC202", f"regions are nested more than {MAX_REGIONS} deep")
        for data in ops:
            block.append(self.op(data, depth))

    def op(self, data: dict[str, Json], depth: int) -> Op:
        name = _text(data["op"])
        if name not in OPS:
            raise IRError("SGLC202", f"unknown operation {name}")
        results = [self.defined(r) for r in data.get("results", ())]
        # Operands come before the results are known: no op reads its own.
        operands = [self.operand(o) for o in data.get("operands", ())]
        op = Op(name, operands, self.attrs(data.get("attrs", {})), [t for _, t in results], (),
                self.place(data.get("loc")), [n for n, _ in results])
        self.values.extend(op.results)
        regions = []
        for region in data.get("regions", ()):
            block = Block([self.defined(a) for a in region["args"]], _text(region["label"]))
            block.parent = op
            self.values.extend(block.args)
            self.ops(block, region["ops"], depth + 1)
            regions.append(block)
        op.regions = tuple(regions)
        return op

    def operand(self, data: dict[str, Json]) -> Operand:
        if "lit" in data:
            return Lit(self.literal(data["lit"]))
        number = data["value"]
        if type(number) is not int or not 0 <= number < len(self.values):
            raise IRError("SGLC202", f"value {number!r} is used before it is defined")
        return self.values[number]

    def defined(self, data: dict[str, Json]) -> tuple[str, Type]:
        kind = self.type(data["type"])
        problem = type_problem(kind)
        if problem is not None:
            raise IRError("SGLC202", problem)
        return _text(data["name"]), kind

    def type(self, data: dict[str, Json]) -> Type:
        return Type(_text(data["name"]), tuple(a if isinstance(a, str) else self.type(a)
                                               for a in data.get("args", ())))

    def attrs(self, data: dict[str, Json]) -> dict[str, Any]:
        return {_text(name): self.literal(value) for name, value in data.items()}

    def literal(self, data: Json, depth: int = 0) -> Any:
        if depth > MAX_NESTED:
            raise IRError("SGLC202", f"lists are nested more than {MAX_NESTED} deep")
        if isinstance(data, list):
            return tuple(self.literal(v, depth + 1) for v in data)
        if isinstance(data, dict):
            ((kind, text),) = data.items()
            if kind == "int":
                return read_int(text)
            if kind == "float" and text in ("inf", "-inf", "nan"):
                return float(text)
            raise IRError("SGLC202", f"unknown literal {data!r}")
        return data

    def place(self, data: Json) -> Place | None:
        if data is None:
            return None
        file, line, col = data
        return Place(_text(file), int(line), int(col))


def _text(data: Json) -> str:
    if not isinstance(data, str):
        raise TypeError(f"expected a text, found {data!r}")
    return data
