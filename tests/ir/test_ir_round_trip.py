"""Modules survive being written and read back, and being copied."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given, settings

from sglc import ir
from sglc.ir.ops import OPS
from tests.ir.ir_modules import ModuleMaker, modules


@settings(max_examples=60, deadline=None)
@given(modules)
def test_text_round_trip(m: ir.Module) -> None:
    ir.verify(m)
    text = ir.print(m)
    again = ir.parse(text)
    assert ir.explain_difference(m, again) is None
    assert ir.print(again) == text
    ir.verify(again)


@settings(max_examples=40, deadline=None)
@given(modules)
def test_json_round_trip(m: ir.Module) -> None:
    data = ir.to_json(m)
    assert ir.explain_difference(m, ir.from_json(data)) is None
    written = json.dumps(data)
    if "\\ud83d\\ude00" not in written:  # JSON text cannot tell such a pair from one character
        assert ir.explain_difference(m, ir.from_json(json.loads(written))) is None


@settings(max_examples=40, deadline=None)
@given(modules)
def test_clone_is_equal_and_shares_no_op_or_value(m: ir.Module) -> None:
    copy = m.clone()
    ir.verify(copy)
    assert copy == m
    assert not {id(op) for op in m.walk()} & {id(op) for op in copy.walk()}
    before = ir.print(m)
    for program in copy.programs.values():
        for op in list(program.walk()):
            op.attrs["changed"] = True
        for op in reversed(list(program.body.ops)):
            op.drop()
    assert ir.print(m) == before
    ir.verify(m)


@settings(max_examples=30, deadline=None)
@given(modules)
def test_notes_are_skipped(m: ir.Module) -> None:
    notes = ["= 5 tok", "last] use", "~ 40\n", None, "<= 3 [x]"]
    text = ir.print(m, notes=lambda op: notes[len(op.operands) % 5])
    assert ir.parse(text) == m


@settings(max_examples=30, deadline=None)
@given(modules)
def test_without_places(m: ir.Module) -> None:
    text = ir.print(m, locs=False)
    again = ir.parse(text)
    for op in again.walk():
        assert op.loc is None
    assert ir.print(again) == text


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_round_trips(name: str) -> None:
    seen = False
    for seed in range(40):
        m = ModuleMaker(Random(seed)).module(must=name)
        seen = seen or any(op.name == name for op in m.walk())
        if seen:
            ir.verify(m)
            assert ir.parse(ir.print(m)) == m
            assert ir.from_json(ir.to_json(m)) == m
            break
    assert seen
