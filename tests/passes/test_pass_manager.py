"""The pass manager: specs, levels, records, callbacks, failures, and its time budget."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import pytest

from sglc import ir
from sglc.errors import IRError, LanguageError
from sglc.ir.module import Module
from sglc.passes import (
    DEFAULT_PIPELINE,
    PASSES,
    Pass,
    PassContext,
    PassError,
    PassManager,
    Preserves,
    Rewrite,
    pipeline,
)
from sglc.passes.printing import print_after, time_table
from tests.helpers_passes import make_context
from tests.passes.random_modules import random_module

SOURCE = """\
program @main() returns ("a") {
  %p0 = prompt.root
  %p1 = prompt.append %p0, "one "
  %p2 = prompt.append %p1, "two"
  %p3, %a: !text, %m = prompt.gen %p2 {path = [0]}
  prompt.bind %a {name = "a"}
  prompt.return %p3
}
"""


@dataclass(frozen=True)
class Breaks(Pass):
    name: ClassVar[str] = "breaks"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        module.programs["main"].body.ops.pop()
        return {}


@dataclass(frozen=True)
class Raises(Pass):
    name: ClassVar[str] = "raises"
    preserves: ClassVar[Preserves] = "distribution"
    word: str = "oops"
    flag: bool = False
    items: tuple[str, ...] = ()

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        raise RuntimeError(self.word)


def test_specs_round_trip() -> None:
    spec = "fold{rounds=3},hoist-prefixes{min-tokens=16},eliminate-dead{outputs=a,\"b c\"},fold"
    manager = PassManager(spec)
    assert manager.spec == spec
    assert PassManager(" fold { rounds = 3 } , hoist_prefixes{min_tokens=16}").spec == (
        "fold{rounds=3},hoist-prefixes{min-tokens=16}")
    assert str(Raises("a b", True, ("x",))) == 'raises{word="a b" flag=true items=x}'
    assert PassManager("").passes == ()


@pytest.mark.parametrize(("spec", "said"), [
    ("flod", "hoist-prefixes"), ("fold{round=3}", "rounds"), ("fold{rounds=many}", "a int"),
    ("fold{rounds}", "a int"), ("fold,", "last comma"), ("fold{rounds=3", "missing at the end"),
    ("fold fold", "missing before 'fold'"), ('fold{rounds="3', "quotation mark"),
    ("fold{rounds=3,4}", "a int"), (",", "a pass is missing"),
])
def test_bad_specs_say_what_is_known(spec: str, said: str) -> None:
    with pytest.raises(LanguageError, match=said):
        PassManager(spec)


def test_levels() -> None:
    assert len(DEFAULT_PIPELINE) == 4
    for level in range(4):
        PassManager(pipeline(level), level=level)
    used = {p.name for p in PassManager(pipeline(2)).passes}
    assert used == set(PASSES) - {"order-bags"}
    for name in ("lower-roles", "tokenize", "liveness", "schedule"):
        assert name not in pipeline(2, model_free=True)
    with pytest.raises(LanguageError, match="preserves only distribution"):
        PassManager([Raises()])
    PassManager([Raises()], level=3)
    PassManager([Raises()], allow="distribution")


def test_records_and_snapshots() -> None:
    manager = PassManager("fold,tokenize", keep_text=True, measure=True)
    out = manager.run(ir.parse(SOURCE), make_context())
    fold, tokenize = manager.records
    assert (fold.ops_before, fold.ops, fold.calls) == (6, 5, 1)
    assert fold.stats == {"merge": 1, "unused": 1}
    assert str(fold.prefill) == "= 7 tok" == str(tokenize.prefill)
    assert fold.text_before == ir.print(ir.parse(SOURCE))
    assert fold.text_after == tokenize.text_before and '"one two"' in str(fold.text_after)
    assert tokenize.text_after == ir.print(out)
    assert fold.seconds > 0 and fold.verify_seconds > 0
    table = time_table(manager.records)
    assert "6 -> 5" in table and "merge=1" in table and len(table.splitlines()) == 3


def test_rewrites_are_recorded_on_request() -> None:
    rewrites: list[Rewrite] = []
    PassManager("fold").run(ir.parse(SOURCE), PassContext(rewrites=rewrites))
    assert [r.rule for r in rewrites] == ["merge"]


def test_printing_callbacks() -> None:
    module = ir.parse(SOURCE)

    def shown(passes: tuple[str, ...] | None = None, **how: bool) -> list[str]:
        out: list[str] = []
        PassManager("functionalize,fold", callbacks=[
            print_after(out.append, passes, **how)]).run(module)
        return out

    both = shown()
    assert len(both) == 2 and "after functionalize (+0 ops)" in both[0]
    (changed,) = shown(changes=True)
    assert "after fold (-1 ops)" in changed and "program @main" in changed
    (diff,) = shown(diff=True)
    assert '-  %p1 = prompt.append %p0, "one "' in diff and "prompt.return" not in diff
    assert len(shown(("fold",))) == 1


def test_a_pass_that_breaks_the_ir_is_named_with_a_reproducer() -> None:
    fold = PASSES["fold"]()
    with pytest.raises(PassError, match="the pass breaks failed") as caught:
        PassManager([fold, Breaks(), fold]).run(ir.parse(SOURCE))
    error = caught.value
    assert isinstance(error, IRError) and error.code == "SGLC203" and error.pass_name == "breaks"
    assert error.reproducer.startswith("// RUN: breaks,fold\n")
    assert ir.parse(error.reproducer) == PassManager("fold").run(ir.parse(SOURCE)) == error.module
    PassManager([Breaks()], verify=False).run(ir.parse(SOURCE))


def test_a_pass_that_raises_is_named() -> None:
    with pytest.raises(PassError, match="oops") as caught:
        PassManager([Raises()], level=3).run(ir.parse(SOURCE))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_malformed_input_is_the_callers() -> None:
    module = ir.parse(SOURCE)
    module.programs["main"].body.ops.pop()
    with pytest.raises(IRError) as caught:
        PassManager("fold").run(module)
    assert caught.value.code == "SGLC201"


def test_a_thousand_ops_compile_in_the_budget() -> None:
    """50 ms on an idle machine; CPU time, with room for a slow one."""
    sizes = ((sum(1 for _ in m.walk()), m)
             for seed in range(50) if (m := random_module(Random(seed), size=300)))
    module = next(m for size, m in sizes if 1000 <= size < 1100)
    best = 1e9
    for _ in range(5):
        start = time.process_time()
        PassManager(pipeline(2), verify=False).run(module, make_context())
        best = min(best, time.process_time() - start)
    assert best < 0.15


def test_modules_with_several_programs() -> None:
    modules = [random_module(Random(seed)) for seed in range(3)]
    both = Module()
    for i, module in enumerate(modules):
        (program,) = module.programs.values()
        program.name = f"p{i}"
        both.add(program)
    out = PassManager(pipeline(2)).run(both, make_context())
    for i in range(3):
        alone = PassManager(pipeline(2)).run(Module([both.programs[f"p{i}"]]), make_context())
        assert alone.programs[f"p{i}"].attrs == out.programs[f"p{i}"].attrs
        assert Module([out.programs[f"p{i}"]]) == alone
