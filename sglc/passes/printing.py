"""Callbacks that print the IR between passes: `--print-after-all`, `-change`, `--print-diff`."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from sglc.ir.module import Module
from sglc.ir.printer import print_module
from sglc.passes.manager import Callback, PassRecord
from sglc.passes.parallelize_forks import critical_path
from sglc.passes.prefill import PrefillCounter
from sglc.tokens.tokenizer import Tokenizer


def print_after(write: Callable[[str], object], passes: Collection[str] | None = None, *,
                changes: bool = False, diff: bool = False, locs: bool = True) -> Callback:
    """A callback that hands `write` the IR after passes.

    passes: only after these (None: all).  changes: only if the pass changed the text.  diff: a
    unified diff instead of the whole text (implies `changes`).  locs: with source places.
    """
    last = ""

    def show(record: PassRecord | None, module: Module) -> None:
        nonlocal last
        text = print_module(module, locs=locs)
        before, last = last, text
        if record is None or (passes is not None and record.name not in passes):
            return
        if (changes or diff) and text == before:
            return
        heading = f"// ----- after {record.spec} ({record.ops - record.ops_before:+d} ops) -----\n"
        write(heading + (_diff(before, text) if diff else text) + "\n")

    return show


def time_table(records: Collection[PassRecord]) -> str:
    """What each pass took and did, a line a pass: `--time-passes`, `--stats`."""
    rows = [("pass", "ms", "verify ms", "ops", "calls", "prefill", "statistics")]
    for r in records:
        rows.append((r.spec, f"{r.seconds * 1e3:.2f}", f"{r.verify_seconds * 1e3:.2f}",
                     f"{r.ops_before} -> {r.ops}", f"{r.calls_before} -> {r.calls}",
                     "" if r.prefill is None else str(r.prefill),
                     " ".join(f"{k}={v}" for k, v in r.stats.items() if v)))
    return _table(rows)


def statistics_table(stages: Mapping[str, Module], tokenizer: Tokenizer | None = None) -> str:
    """What there is of what at each stage, a line a stage: `--stats`.

    steps: model calls that follow one another at most.  constant tokens: see `prefill.py`.
    """
    counter = None if tokenizer is None else PrefillCounter(tokenizer)
    rows: list[tuple[str, ...]] = [
        ("stage", "ops", "gens", "selects", "host calls", "branches", "steps", "constant tokens")]
    for stage, module in stages.items():
        names = Counter(op.name.partition(".")[2] for op in module.walk())
        steps = max([critical_path(p) for p in module.programs.values()], default=0)
        rows.append((stage, str(names.total()), str(names["gen"] + names["decode"]),
                     str(names["select"] + names["score"]), str(names["host"]),
                     str(names["if"] + names["switch"]), str(steps),
                     "" if counter is None else str(counter.count(module))))
    return _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max([len(row[i]) for row in rows]) for i in range(len(rows[0]))]
    return "\n".join(["  ".join([c.ljust(w) for c, w in zip(row, widths, strict=True)]).rstrip()
                      for row in rows])


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    return "\n".join(list(lines)[2:])
