"""The summary of a compilation: what was captured, and what the passes made of it."""

from __future__ import annotations

from typing import Any

from sglc.errors import Place


def summary(compiled: Any) -> str:
    """A few lines on a `Compiled`: paths, breaks, operations, model calls, constant tokens."""
    program = compiled.program
    code = program.fn.__code__
    lines = [f"{program.name}  {Place(code.co_filename, code.co_firstlineno)}"]
    paths = f"{compiled.paths} path{'s' if compiled.paths != 1 else ''}"
    records = compiled.records
    if not records:
        lines.append("  not captured: it runs in the eager interpreter")
        lines += ["  " + line for d in compiled.breaks for line in str(d).splitlines()]
        return "\n".join(lines)
    first, last = records[0], records[-1]
    lines.append(f"  traced   {paths}, {compiled.graph_breaks} graph breaks, "
                 f"{first.ops_before} ops, {first.calls_before} model calls")
    for what, n in compiled.assumed.items():
        lines.append(f"  assumed  {what}={n} (no argument was given)")
    lines.append(f"  {'pass':<18}{'ops':>10}{'calls':>10}   constant tokens   what it did")
    for r in records:
        stats = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in r.stats.items() if v)
        tokens = ""
        if r.prefill is not None and r.prefill_before is not None:
            tokens = (str(r.prefill) if r.prefill == r.prefill_before
                      else f"{r.prefill_before} -> {r.prefill}")
        lines.append(f"  {r.name:<18}{_change(r.ops_before, r.ops):>10}"
                     f"{_change(r.calls_before, r.calls):>10}   {tokens:<16}  {stats}".rstrip())
    total = sum(r.seconds + r.verify_seconds for r in records)
    lines.append(f"  {len(records)} passes, {first.ops_before} -> {last.ops} ops, "
                 f"{total * 1e3:.1f} ms with verification")
    return "\n".join(lines)


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before}->{after}"
