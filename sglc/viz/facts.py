"""What is known of each box of a picture: its tokens, its KV, how long it is held, who reads it,
and what kept it from being shared more.

Counts are the compiler's: ids as the tokenize pass made them are exact, others estimates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sglc.errors import Diagnostic
from sglc.plan.figures import Mark
from sglc.tokens.tokenizer import Tokenizer
from sglc.viz.picture import Node, Piece

MOST_TOKENS = 1500  # shown of one box
MOST_TEXT = 20_000  # characters shown of one piece


@dataclass(frozen=True, slots=True)
class Count:
    """A number of tokens: exactly, at most, or about; None if nothing is known."""

    value: int | None
    mark: Mark = "="

    def __str__(self) -> str:
        return "not known" if self.value is None else f"{self.mark} {self.value:,}"


@dataclass(slots=True)
class Facts:
    """Of one box.

    tokens: that it adds to the prompt.  before: of the constant prompt in front of it, None where
    something in front is known at run time only.  readers: the calls whose prompts contain it.
    until: the last of them.  everywhere: all rows of a batch have it, with the same ids.
    remarks: missed optimisations at its places.
    """

    tokens: Count = field(default_factory=lambda: Count(None))
    before: int | None = None
    readers: list[Node] = field(default_factory=list)
    until: Node | None = None
    everywhere: bool = False
    remarks: list[Diagnostic] = field(default_factory=list)
    spelled: list[list[str]] = field(default_factory=list)  # for each piece, its tokens' texts


def facts(nodes: Sequence[Node], tokenizer: Tokenizer | None,
          remarks: Iterable[Diagnostic] = ()) -> dict[Node, Facts]:
    """The facts of each box; boxes come after those that they continue."""
    out = {n: Facts() for n in nodes}
    by_line: dict[tuple[str, int], list[Diagnostic]] = {}
    for d in remarks:
        if d.place is not None:
            by_line.setdefault((d.place.file, d.place.line), []).append(d)
    bos = 1 if tokenizer is not None and tokenizer.bos_id is not None else 0
    for n in nodes:
        f = out[n]
        f.spelled = [spelled(p, tokenizer) for p in n.pieces]
        f.tokens = _tokens(n, f, tokenizer)
        f.before = bos if n.parent is None else _behind(n.parent, out)
        f.everywhere = n.kind == "text" and f.before is not None and all(
            p.kind != "value" for p in n.pieces)
        f.remarks = _at(n, by_line)
    for n in nodes:
        if n.kind in ("gen", "select"):
            above = n.parent
            while above is not None:
                out[above].readers.append(n)
                out[above].until = n
                above = above.parent
    return out


def readers(nodes: Sequence[Node]) -> dict[Node, int]:
    """How many calls, repeated ones counted, have each box in their prompts."""
    out = dict.fromkeys(nodes, 0)
    for n in reversed(nodes):
        out[n] += n.repeats if n.kind in ("gen", "select") else 0
        if n.parent is not None:
            out[n.parent] += out[n]
    return out


def spelled(piece: Piece, tokenizer: Tokenizer | None) -> list[str]:
    """The texts of a piece's tokens, one after the other; of text that is not encoded yet, what
    its tokens would be by themselves."""
    if piece.kind == "value":
        return []
    if tokenizer is None:
        return [piece.text[:MOST_TEXT]]
    if piece.kind == "special" and piece.ids is None:
        return [piece.text]
    names = {i: name for name, i in tokenizer.special.items()}
    ids = piece.ids
    if ids is None:
        ids = tuple(tokenizer.encode(piece.text[:MOST_TEXT]))
    shown = [names.get(i) or tokenizer.token_bytes(i).decode("utf-8", "replace")
             for i in ids[:MOST_TOKENS]]
    return [*shown, "…"] if len(ids) > MOST_TOKENS else shown


def _tokens(n: Node, f: Facts, tokenizer: Tokenizer | None) -> Count:
    if n.kind == "gen":
        attrs: Mapping[str, object] = n.ops[0].attrs if n.ops else {}
        most = [v for v in (attrs.get("max_tokens"), attrs.get("most_tokens"))
                if isinstance(v, int)]
        return Count(min(most), "<=") if most else Count(None)
    if n.kind != "text" or tokenizer is None:
        return Count(None if n.kind in ("text", "select", "other") else 0)
    if any(p.kind == "value" for p in n.pieces):
        known = sum([len(s) for s, p in zip(f.spelled, n.pieces, strict=True)
                     if p.kind != "value"])
        return Count(known, "~")
    total = sum([len(tokenizer.encode(p.text)) if p.ids is None and p.kind == "constant"
                 else len(p.ids or (0,)) for p in n.pieces])
    held = n.pieces[-1].held if n.pieces else ""
    total += len(tokenizer.encode(held)) if held else 0
    return Count(total, "=" if all(p.ids is not None for p in n.pieces) else "~")


def _behind(parent: Node, known: Mapping[Node, Facts]) -> int | None:
    f = known[parent]
    if parent.kind == "branch":
        return f.before
    if parent.kind != "text" or f.before is None or f.tokens.value is None or f.tokens.mark == "~":
        return None
    return f.before + f.tokens.value


def _at(n: Node, by_line: Mapping[tuple[str, int], list[Diagnostic]]) -> list[Diagnostic]:
    found: dict[int, Diagnostic] = {}
    for op in n.ops:
        if op.loc is not None:
            for d in by_line.get((op.loc.file, op.loc.line), ()):
                if not d.code.startswith("SGLC412") or n.kind != "text":
                    found[id(d)] = d
    return list(found.values())
