"""`sglc compile --batch`: which variants the rows of a file need, and the tokens they share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sglc.commands import common
from sglc.errors import LanguageError, Place
from sglc.ir.bags import text_counts
from sglc.ir.module import Module
from sglc.lang.compiled import compile_program
from sglc.lang.lowering import arguments
from sglc.lang.summary import Explanation
from sglc.passes.prefill import BatchPrefill, PrefillCounter


def read_rows(path: str) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; SGLC001 with the line for anything else."""
    rows = []
    for number, line in enumerate(common.read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as e:
            raise LanguageError("SGLC001", f"a row of the batch is not JSON: {e.msg}",
                                place=Place(path, number, e.colno)) from None
        if not isinstance(row, dict):
            raise LanguageError("SGLC001", "a row of the batch is not an object of arguments",
                                place=Place(path, number),
                                fixes=('write {"name": value, ...} in each line',))
        rows.append(row)
    if not rows:
        raise LanguageError("SGLC001", f"{path} has no rows")
    return rows


class Batch:
    """The rows of a file, by the variant that runs them."""

    def __init__(self, program: Any, path: str, rows: list[dict[str, Any]],
                 tokens: common.Tokens) -> None:
        self.program = program
        self.path = path
        self.tokens = tokens
        self.given = rows
        self.rows = program.signature.rows(rows)
        cache = program.compiler()
        checked: set[Any] = set()
        members: dict[Any, list[int]] = {}
        for index, values in enumerate(self.rows):
            members.setdefault(cache.variant(values, checked), []).append(index)
        self.variants = members
        self.examples: list[dict[str, Any]] = [rows[m[0]] for m in members.values()]
        self.prefill: BatchPrefill | None = None
        self.ordered: BatchPrefill | None = None  # with the order of its bags chosen
        if all(v.trace is not None for v in members):
            counter = PrefillCounter(tokens.tokenizer)
            self.prefill = counter.count_rows(self._modules(2))
            if any(op.name == "prompt.bag" for v in members if v.trace is not None
                   for p in v.trace.module.programs.values() for op in p.walk()):
                self.ordered = counter.count_rows(self._modules(3), text_counts(self.rows))

    def _modules(self, level: int) -> Iterator[tuple[Module, dict[str, Any]]]:
        for members, example in zip(self.variants.values(), self.examples, strict=True):
            module = compile_program(self.program, (), example, self.tokens,
                                     level).stages["prompt"]
            for index in members:
                yield module, arguments(self.rows[index])

    @property
    def eager(self) -> int:
        """How many rows run in the eager interpreter."""
        return sum(len(m) for v, m in self.variants.items() if v.trace is None)

    def text(self, explained: list[Explanation]) -> str:
        """A few lines: rows, variants, shared tokens."""
        first = explained[0]
        lines = [f"{first.name}  {first.place}",
                 f"  batch    {len(self.rows)} rows ({self.path}), "
                 f"{len(self.variants)} variant{'s' if len(self.variants) > 1 else ''}"
                 + (f", {self.eager} rows run eagerly" if self.eager else "")]
        for e, members in zip(explained, self.variants.values(), strict=True):
            made = "not captured" if not e.passes else (
                f"{e.paths} path{'s' if e.paths != 1 else ''}, {e.graph_breaks} graph breaks, "
                f"{e.passes[0].ops_before} -> {e.passes[-1].ops} ops, "
                f"{e.passes[-1].calls} model calls")
            lines.append(f"  variant  {len(members)} rows: {made}")
        if self.prefill is not None:
            p = self.prefill
            shared = 100 * (1 - p.unique / p.alone) if p.alone else 0.0
            lines.append(f"  prefill  {p.mark} {p.unique} tokens with every prefix once, "
                         f"{p.mark} {p.alone} if rows share nothing ({shared:.1f} % shared)")
            if self.ordered is not None:
                o = self.ordered
                lines.append(f"  bags     {o.mark} {o.unique} tokens if they are ordered "
                             f"(opt_level=3): {p.unique - o.unique} fewer")
        return "\n".join(lines)

    def report(self, index: int) -> dict[str, Any]:
        """The same as plain data, for one variant."""
        p = self.prefill
        return {"file": self.path, "rows": len(self.rows), "variants": len(self.variants),
                "eager_rows": self.eager, "rows_of_variant": len(list(
                    self.variants.values())[index]),
                "prefill": None if p is None else {
                    "unique": p.unique, "alone": p.alone, "exact": p.exact},
                "ordered_bags": None if self.ordered is None else {
                    "unique": self.ordered.unique, "exact": self.ordered.exact}}
