"""What the compiler made of a program, for readers: in short, in full, and as an object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sglc.errors import Diagnostic, Place
from sglc.passes.base import PassContext
from sglc.passes.manager import PassRecord
from sglc.passes.remarks import remarks

_SHOWN_BREAKS = 6  # in the short form


@dataclass(frozen=True, slots=True)
class Explanation:
    """A compilation explained; `str` is the full text.

    paths: how many ways through the program were explored.  breaks: where its graph breaks.
    passes: what each pass did (none if nothing was captured).  remarks: SGLC4xx, missed
    optimisations.  assumed: counts that were not given.
    """

    name: str
    place: Place
    paths: int = 0
    breaks: tuple[Diagnostic, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    remarks: tuple[Diagnostic, ...] = ()
    assumed: dict[str, int] = field(default_factory=dict)

    @property
    def graph_breaks(self) -> int:
        return len(self.breaks)

    def short(self) -> str:
        """At most about 25 lines: paths, breaks, what the passes did, how many remarks."""
        lines = [*self._head(), *self._table()]
        if self.remarks:
            places = dict.fromkeys(
                f"{d.code} {_where(d.place)}".rstrip() for d in self.remarks)
            shown = ", ".join(list(places)[:3]) + (", ..." if len(places) > 3 else "")
            lines.append(f"  remarks  {len(self.remarks)} (--explain shows them): {shown}")
        return "\n".join(lines)

    def __str__(self) -> str:
        lines = [*self._head(brief=False), *self._table()]
        for what, found in (("break", self.breaks), ("remark", self.remarks)):
            for d in found:
                lines += ["", *[f"  {line}" for line in f"{what}: {d}".splitlines()]]
        if self.breaks or self.remarks:
            codes = dict.fromkeys(d.code for d in (*self.breaks, *self.remarks))
            lines += ["", f"  more: sglc explain {' | '.join(codes)}"]
        return "\n".join(lines)

    def _head(self, brief: bool = True) -> list[str]:
        lines = [f"{self.name}  {self.place}"]
        if not self.passes:
            lines.append("  not captured: it runs in the eager interpreter")
            if brief:
                lines += ["  " + line for d in self.breaks for line in str(d).splitlines()]
            return lines
        first = self.passes[0]
        lines.append(f"  traced   {_count(self.paths, 'path')}, "
                     f"{_count(self.graph_breaks, 'graph break')}, "
                     f"{first.ops_before} ops, {_count(first.calls_before, 'model call')}")
        if brief:
            lines += [f"  break    {d.code} {_where(d.place)}: {d.what}"
                      for d in self.breaks[:_SHOWN_BREAKS]]
            if len(self.breaks) > _SHOWN_BREAKS:
                lines.append(f"           and {len(self.breaks) - _SHOWN_BREAKS} more")
        lines += [f"  assumed  {what}={n} (no argument was given)"
                  for what, n in self.assumed.items()]
        return lines

    def _table(self) -> list[str]:
        if not self.passes:
            return []
        lines = [f"  {'pass':<18}{'ops':>10}{'calls':>10}   constant tokens   what it did"]
        for r in self.passes:
            stats = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in r.stats.items() if v)
            tokens = ""
            if r.prefill is not None and r.prefill_before is not None:
                tokens = (str(r.prefill) if r.prefill == r.prefill_before
                          else f"{r.prefill_before} -> {r.prefill}")
            lines.append(f"  {r.name:<18}{_change(r.ops_before, r.ops):>10}"
                         f"{_change(r.calls_before, r.calls):>10}   {tokens:<16}  {stats}".rstrip())
        total = sum(r.seconds + r.verify_seconds for r in self.passes)
        lines.append(f"  {len(self.passes)} passes, {self.passes[0].ops_before} -> "
                     f"{self.passes[-1].ops} ops, {total * 1e3:.1f} ms with verification")
        return lines


def explanation(compiled: Any, context: PassContext | None = None) -> Explanation:
    """The explanation of a `Compiled`.

    context: its tokenizer, rows and `max_tokens` as far as known, for exact amounts (by default
    what it was compiled in).
    """
    program = compiled.program
    code = program.fn.__code__
    traced = compiled.stages.get("traced")
    context = context or getattr(compiled, "context", None)
    return Explanation(
        program.name, Place(code.co_filename, code.co_firstlineno), compiled.paths,
        tuple(compiled.breaks), tuple(compiled.records),
        () if traced is None else tuple(remarks(traced, context)), dict(compiled.assumed))


def summary(compiled: Any, context: PassContext | None = None) -> str:
    """A few lines on a `Compiled`: paths, breaks, operations, model calls, constant tokens."""
    return explanation(compiled, context).short()


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _where(place: Place | None) -> str:
    if place is None:
        return ""
    return f"{place.file.replace(chr(92), '/').rpartition('/')[2]}:{place.line}"


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before}->{after}"
