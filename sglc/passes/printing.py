"""Callbacks that print the IR between passes: `--print-after-all`, `-change`, `--print-diff`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection

from sglc.ir.module import Module
from sglc.ir.printer import print_module
from sglc.passes.manager import Callback, PassRecord


def print_after(write: Callable[[str], object], passes: Collection[str] | None = None, *,
                changes: bool = False, diff: bool = False) -> Callback:
    """A callback that hands `write` the IR after passes.

    passes: only after these (None: all).  changes: only if the pass changed the text.  diff: a
    unified diff instead of the whole text (implies `changes`).
    """
    last = ""

    def show(record: PassRecord | None, module: Module) -> None:
        nonlocal last
        text = print_module(module)
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
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
                     for row in rows)


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    return "\n".join(list(lines)[2:])
