"""Equality, copies of parts, use lists, the JSON form's errors, lazy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc import ir
from sglc.errors import IRError, Place
from sglc.ir import literals, types
from sglc.ir.clone import clone_block, clone_op, clone_program
from sglc.ir.module import Block, Lit, Module, Op, Value
from tests.ir.ir_modules import modules

TEXT = """\
program @f(%q: !text) returns ("x") {
  %p0 = prompt.root
  %p1 = prompt.append %p0, "a"  // a.py:2:3
  %p2, %x: !text, %m = prompt.gen %p1 {path = [0], temperature = 1.0}
  %r: !prompt = prompt.switch %x {
    case "a" {
      %p3 = prompt.append %p2, %q
      prompt.yield %p3
    }
    default {
      prompt.yield %p2
    }
  }
  prompt.return %r
}
"""


def changed(old: str, new: str) -> Module:
    assert TEXT.count(old) == 1
    return ir.parse(TEXT.replace(old, new))


def test_names_of_values_do_not_matter() -> None:
    assert ir.equal_modules(ir.parse(TEXT), ir.parse(TEXT.replace("%p3", "%other")))


@pytest.mark.parametrize(("old", "new", "difference"), [
    ("@f", "@g", "programs: ['f'] != ['g']"),
    ('("x")', '("y")', "header"),
    (") {\n  %p0", ") {  // a.py:1:1\n  %p0", "header"),
    ("(%q: !text)", "(%q: !int)", "argument types"),
    ("a.py:2:3", "a.py:2:4", "place: a.py:2:3 != a.py:2:4"),
    ("[0]", "[1]", "attribute path: (0,) != (1,)"),
    ("1.0", "1", "attribute temperature: 1.0 != 1"),
    ("temperature", "top_p", "attributes"),
    ('%p0, "a"', '%p0, "b"', "operand 1: Lit('a') != Lit('b')"),
    ('%p0, "a"', "%p0, %q", "operand 1"),
    ("%p2, %q", "%p1, %q", "op 3 (prompt.switch): region 0: op 0 (prompt.append): operand 0"),
    ("%x: !text", "%x: !json", "result types"),
    ('case "a"', 'case "b"', "region 0: label: 'a' != 'b'"),
    ("  prompt.return %r", "  %z = prompt.text %r\n  prompt.return %r", "name"),
    ("  prompt.return %r\n", "", "number of ops: 5 != 4"),
    ("prompt.return %r", "prompt.return %r, 1", "number of operands: 1 != 2"),
])
def test_differences_are_told(old: str, new: str, difference: str) -> None:
    a, b = ir.parse(TEXT), changed(old, new)
    assert a != b
    assert difference in (ir.explain_difference(a, b) or "")
    assert ir.explain_difference(b, a) is not None


def test_argument_names_matter() -> None:
    assert ir.parse(TEXT) != ir.parse(TEXT.replace("%q", "%r2"))


@pytest.mark.parametrize(("a", "b"), [(1, True), (1, 1.0), (0.0, -0.0), ((1,), (True,)),
                                      ((), None), ("1", 1), ((1, (2.0,)), (1, (2,)))])
def test_literals_that_look_equal_are_not(a: object, b: object) -> None:
    assert not literals.same(a, b)
    assert literals.same(a, a)
    assert literals.same(b, b)


def test_nan_is_itself() -> None:
    assert literals.same(float("nan"), -float("nan"))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=10))
def test_quoting(text: str) -> None:
    quoted = literals.quote(text)
    assert literals.unquote(quoted) == text
    assert len(quoted.splitlines()) == 1
    quoted.encode("utf-8")


def test_json_escapes_are_understood() -> None:
    assert literals.unquote(r'"\ud83d\ude00\/\b\f\n\r\t\\u0041\u0041"') == "😀/\b\f\n\r\t\\u0041A"


def test_clone_program_keeps_everything() -> None:
    program = ir.parse(TEXT).programs["f"]
    copy = clone_program(program)
    assert Module([copy]) == Module([program])
    copy.body.ops[2].attrs["path"] = (9,)
    copy.attrs["a"] = 1
    assert program.body.ops[2].attrs["path"] == (0,)
    assert program.attrs == {}
    assert copy.body.ops[3].regions[0].parent is copy.body.ops[3]


def test_clone_block_maps_values() -> None:
    program = ir.parse(TEXT).programs["f"]
    switch = program.body.ops[3]
    region = switch.regions[0]
    q = program.args[0]
    values: dict[Value, Value | Lit] = {q: Lit("other")}
    copy = clone_block(region, values)
    assert copy.label == "a"
    assert copy.parent is None
    append, end = copy.ops
    assert append.operands == (region.ops[0].operands[0], Lit("other"))
    assert values[region.ops[0].results[0]] is append.results[0]
    assert end.operands == append.results
    assert region.ops[0].operands[0].uses.count(append) == 1  # type: ignore[union-attr]
    assert q.uses == [region.ops[0]]


def test_clone_op_copies_regions() -> None:
    program = ir.parse(TEXT).programs["f"]
    switch = program.body.ops[3]
    copy = clone_op(switch, {})
    assert copy.block is None
    program.body.insert_after(switch, copy)
    program.body.ops[-1].set_operands(copy.results)
    ir.verify(Module([program]))
    switch.erase()
    ir.verify(Module([program]))


def test_clone_of_malformed_ir_keeps_to_itself() -> None:
    m = ir.parse(TEXT)
    ops = m.programs["f"].body.ops
    ops[1], ops[2] = ops[2], ops[1]  # a use before the definition
    copy = m.clone()
    mine = {id(op) for op in copy.walk()}
    for op in copy.walk():
        assert all(id(o.op) in mine for o in op.operands if isinstance(o, Value) and o.op)


@settings(max_examples=30, deadline=None)
@given(modules)
def test_use_lists_after_editing(m: Module) -> None:
    for program in m.programs.values():
        for op in list(program.walk()):
            if op.name == "prompt.append":
                op.results[0].replace_by(op.operands[0])
                op.erase()
            elif op.name == "prompt.bind":
                op.erase()
        seen: dict[Value, int] = {}
        for op in program.walk():
            for operand in op.operands:
                if isinstance(operand, Value):
                    seen[operand] = seen.get(operand, 0) + 1
        for value, count in seen.items():
            assert len(value.uses) == count


def test_erase_takes_regions_along() -> None:
    program = ir.parse(TEXT).programs["f"]
    switch = program.body.ops[3]
    program.body.ops[-1].set_operands(program.body.ops[2].results[:1])
    switch.erase()
    assert program.args[0].uses == []
    ir.verify(Module([program]))


def test_a_switch_case_called_default_round_trips() -> None:
    m = ir.parse(TEXT)
    region = m.programs["f"].body.ops[3].regions
    region[0].label, region[1].label = "default", "z"
    assert 'case "default" {' in ir.print(m)
    assert ir.parse(ir.print(m)) == m


@pytest.mark.parametrize("labels", [("", ""), ("then", "else"), ("a", ""), ("", "b")])
def test_labels_of_an_if_round_trip(labels: tuple[str, str]) -> None:
    m = Module()
    program = m.add(ir.Program("f", [("q", types.TEXT)]))
    blocks = []
    for label in labels:
        block = Block((), label)
        block.append(Op("prompt.yield"))
        blocks.append(block)
    root = program.body.append(Op("prompt.root", (), None, (types.PROMPT,)))
    program.body.append(Op("prompt.if", program.args, {}, (), blocks, Place("a.py", 1)))
    program.body.append(Op("prompt.return", root.results))
    ir.verify(m)
    assert ir.parse(ir.print(m)) == m
    assert ir.from_json(ir.to_json(m)) == m


@pytest.mark.parametrize("data", [
    {}, {"version": 2, "programs": []}, {"version": 1}, {"version": 1, "programs": [{}]}, [], None,
    {"version": 1, "programs": [{"name": 1, "args": [], "returns": [], "loc": None, "attrs": {},
                                 "ops": []}]},
])
def test_data_that_is_not_ir(data: object) -> None:
    with pytest.raises(IRError, match="SGLC202"):
        ir.from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", [
    {"op": "prompt.frob"}, {"op": "kv.release", "operands": [{"value": 7}]},
    {"op": "kv.release", "operands": [{"value": -1}]},
    {"op": "kv.release", "operands": [{"lit": {"float": "x"}}]},
    {"op": "kv.root", "results": [{"name": "k", "type": {"name": "frob"}}]},
    {"op": "kv.root", "loc": ["a"]}, {"op": "kv.release", "operands": [{}]}, 3,
    {"op": "prompt.list", "operands": [{"lit": {"int": "7" * 5000}}]},
])
def test_ops_that_are_not_ir(op: object) -> None:
    program = {"name": "f", "args": [], "returns": [], "loc": None, "attrs": {}, "ops": [op]}
    with pytest.raises(IRError, match="SGLC202"):
        ir.from_json({"version": 1, "programs": [program]})


def test_deep_data_is_an_error() -> None:
    data: object = []
    for _ in range(5000):
        data = [data]
    op = {"op": "prompt.list", "operands": [{"lit": data}]}
    program = {"name": "f", "args": [], "returns": [], "loc": None, "attrs": {}, "ops": [op]}
    with pytest.raises(IRError, match="nested more than"):
        ir.from_json({"version": 1, "programs": [program]})


def test_lark_and_networkx_are_imported_only_when_used() -> None:
    code = ("import sys, sglc.ir as ir; ir.Module(); ir.verify(ir.Module()); ir.print(ir.Module());"
            "assert not {'lark', 'networkx', 'torch'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
