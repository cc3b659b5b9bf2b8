"""Prompts and texts before a run: what is known of them, and how long the rest may get.

A draft stands for a prompt as `tokens/prompt.py` defines it, and ends at a place in a prefix
tree.  Text that a model or the user's Python will write is `Open`: parts that are known, and
pieces of which only lengths are.  Knows no operations.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from sglc.plan.prefix_tree import Node, PrefixTree
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.text import utf8
from sglc.tokens.tokenizer import Tokenizer

UNBOUNDED = 1 << 40
"""Stands for a length without a bound, in tokens or bytes."""

_CUT_FROM = 48  # as in tokens/prompt.py; it changes no ids


@dataclass(frozen=True, slots=True)
class Piece:
    """A text that a run will tell.  expected: tokens, estimated.  most: bytes at most."""

    key: Hashable
    expected: float
    most: int


@dataclass(frozen=True, slots=True)
class Open:
    """A text with pieces that are not known."""

    parts: tuple[str | Piece, ...]

    @property
    def expected(self) -> float:
        return sum([p.expected if isinstance(p, Piece) else len(p) / 4 for p in self.parts])

    @property
    def most(self) -> int:
        return sum([p.most if isinstance(p, Piece) else len(utf8(p)) for p in self.parts])


def joined(parts: Iterable[str | Open]) -> str | Open:
    """The parts one after the other, as one text."""
    out: list[str | Piece] = []
    for part in parts:
        out.extend([part] if isinstance(part, str) else part.parts)
    if any(isinstance(p, Piece) for p in out):
        return Open(tuple(out))
    return "".join([p for p in out if isinstance(p, str)])


def growth(tokenizer: Tokenizer) -> int:
    """How many tokens a byte of text is at most, whatever text it is part of: one, or three where
    the tokenizer may normalise text to NFC first (Unicode Standard Annex 15)."""
    vocab = getattr(tokenizer, "vocab", None)
    as_it_is = isinstance(tokenizer, ByteTokenizer) or (
        vocab is not None and vocab.normalizer is None and vocab.first_normalizer is None
        and not vocab.dummy_prefix)
    return 1 if as_it_is else 3


@dataclass(frozen=True, slots=True)
class Border:
    """What ends a run of text: a control token, or what a gen wrote, whose text it has."""

    ids: array[int] | None
    text: str | Open = ""
    key: Hashable = None
    expected: float = 0
    most: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A prompt: a place in the tree, and behind it the end of the open run.

    tail: text that is known.  open: from the first piece on that is not, empty before one.
    first: the run opens the prompt.  before, added: how it came about.
    """

    at: Node
    tail: str = ""
    open: tuple[Piece, ...] = ()
    first: bool = False
    before: Draft | None = None
    added: str | Open | Border = ""

    def since(self, base: Draft | None) -> list[str | Open | Border]:
        """What was added after `base`, or from the start."""
        out: list[str | Open | Border] = []
        draft: Draft | None = self
        while draft is not None and draft is not base:
            out.append(draft.added)
            draft = draft.before
        out.reverse()
        return out

    def text(self, base: Draft | None = None) -> str | Open:
        """The text added after `base`, or all of it."""
        return joined([a.text if isinstance(a, Border) else a for a in self.since(base)])


class Drafts:
    """Makes drafts in one tree for one tokenizer."""

    def __init__(self, tree: PrefixTree, tokenizer: Tokenizer) -> None:
        self.tree = tree
        self.tokenizer = tokenizer
        self.growth = growth(tokenizer)

    def empty(self) -> Draft:
        bos = self.tokenizer.bos_id
        at = self.tree.root if bos is None else self.tree.extend(
            self.tree.root, array("q", (bos,)))
        return Draft(at, first=True)

    def append(self, draft: Draft, text: str | Open) -> Draft:
        """The draft with text added to its last run."""
        new = draft
        for part in text.parts if isinstance(text, Open) else (text,):
            new = self._known(new, part) if isinstance(part, str) else self._piece(new, part)
        return draft if new is draft else replace(new, before=draft, added=text)

    def add(self, draft: Draft, added: str | Open | Border) -> Draft:
        """The draft with what was added to another."""
        if not isinstance(added, Border):
            return self.append(draft, added)
        end = self.end(draft)
        if added.ids is None:
            end = self.tree.block(end, added.key, added.expected, added.most)
        else:
            end = self.tree.extend(end, added.ids)
        return Draft(end, before=draft, added=added)

    def special(self, draft: Draft, token: int) -> Draft:
        """The draft with a control token (BOS at the very start is not doubled)."""
        if token == self.tokenizer.bos_id and draft.before is None:
            return draft
        return self.add(draft, Border(array("q", (token,))))

    def _known(self, draft: Draft, text: str) -> Draft:
        if not text:
            return draft
        if draft.open:
            return replace(draft, open=(*draft.open, self._as_piece(text, text)))
        tail = draft.tail + text
        if len(tail) >= _CUT_FROM:
            return self._cut(replace(draft, tail=tail))
        return replace(draft, tail=tail)

    def _cut(self, draft: Draft) -> Draft:
        """With what no text can change of the tail settled."""
        cut = self.tokenizer.encode_run(draft.tail, draft.first)
        if not cut.ids:
            return draft
        return replace(draft, at=self.tree.extend(draft.at, cut.ids), tail=cut.held, first=False)

    def _piece(self, draft: Draft, piece: Piece) -> Draft:
        draft = self._opened(draft)
        return replace(draft, open=(*draft.open, piece))

    def _opened(self, draft: Draft) -> Draft:
        """The draft, ready for text that is not known.  The tail probably stays as it is encoded
        now, but it need not."""
        if draft.open or not draft.tail:
            return draft
        draft = self._cut(draft)
        held = Piece(("held", draft.tail), 0, len(utf8(draft.tail)))
        return replace(draft, at=self.end(draft), tail="", open=(held,))

    def _as_piece(self, text: str, key: Hashable) -> Piece:
        """Known text behind text that is not."""
        return Piece(key, len(self.tokenizer.encode(text)), len(utf8(text)))

    def end(self, draft: Draft) -> Node:
        """The place behind all of the prompt's tokens."""
        if draft.open:
            # Drafts that begin alike probably have these tokens in common: they are expected
            # once.  They need not, so each draft has all it could be for itself.
            node = draft.at
            for piece in draft.open:
                node = self.tree.block(node, ("expected", piece.key), piece.expected, 0)
            return self.tree.block(node, "rest", 0, self.open_most(draft))
        return self.tree.extend(draft.at, self.run(draft))

    def stable(self, draft: Draft) -> Node:
        """The place behind the tokens that no further text can change."""
        return self._cut(draft).at if draft.tail and not draft.open else draft.at

    def open_most(self, draft: Draft) -> int:
        """How many tokens there are at most in the open run behind its last stable cut."""
        most = sum([p.most for p in draft.open]) + len(utf8(draft.tail))
        return min(self.growth * most, UNBOUNDED)

    def run(self, draft: Draft) -> array[int]:
        """The ids behind `draft.at`, where nothing is open."""
        return array("q", self.tokenizer.encode(draft.tail, draft.first) if draft.tail else ())

    def chosen(self, draft: Draft, choice: Open, key: Hashable) -> Draft:
        """The draft with one of several texts added; all were read but for their last tokens."""
        new = self._opened(draft)
        piece = Piece(key, 1, choice.most)
        return replace(new, open=(*new.open, piece), before=draft, added=choice)
