"""Prompt values: immutable lists of spans, and the token ids they stand for.

The contract (design section 3): ids are a function of the prompt value alone.  Adjacent text
spans form one run that is tokenized as a whole; a generated span (even an empty one), an image or
a control token is a border that ends a run.  A run after a border is a continuation (no BOS, no
dummy prefix).  Encoding may proceed piecewise, but only from a tokenizer's stable cut, so the
result is always that of encoding each run whole.

This module knows nothing of models, engines or programs.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from sglc.tokens.images import PlacedImage
from sglc.tokens.spans import spans_since
from sglc.tokens.tokenizer import Encoded, Tokenizer

# A tail shorter than this is kept as text; longer ones are cut so that they are not re-encoded.
_CUT_FROM = 48


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, part of a run."""

    text: str


@dataclass(frozen=True, slots=True)
class Special:
    """One control token; a border, without text."""

    id: int


@dataclass(frozen=True, slots=True)
class Generated:
    """Tokens that a model wrote, kept as they are; a border even when there are none.

    held: the ids at the end of the text before that these stand in for (token healing): they
    spell it again, and `text` is what they spell behind it.
    """

    ids: tuple[int, ...]
    text: str
    held: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """An image; a border.  `text` is what texts show of it."""

    image: PlacedImage
    text: str


Span = Text | Special | Generated | Image


class Prompt:
    """An immutable prompt.  Every method returns a new value that shares its parts with this one.

    `ids` holds the ids up to the last border or stable cut, `tail` the text after it; `images`
    are those in it, in order.
    """

    __slots__ = ("_full", "_text", "first", "ids", "images", "parent", "span", "tail", "tokenizer")

    def __init__(self, tokenizer: Tokenizer, ids: array, tail: str, first: bool,
                 parent: Prompt | None, span: Span | None) -> None:
        self.tokenizer = tokenizer
        self.ids = ids
        self.tail = tail
        self.first = first  # the current run opens the prompt
        self.parent = parent
        self.span = span
        self.images: tuple[PlacedImage, ...] = () if parent is None else parent.images
        if isinstance(span, Image):
            self.images = (*self.images, span.image)
        self._full: array | None = None
        self._text: str | None = None

    @classmethod
    def empty(cls, tokenizer: Tokenizer) -> Prompt:
        """The empty prompt: no text; BOS if the tokenizer adds one."""
        bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        return cls(tokenizer, array("q", bos), "", True, None, None)

    def append(self, text: str, cut_from: int = _CUT_FROM) -> Prompt:
        """This prompt with `text` added to its last run (plain characters, never control).

        cut_from: tails at least this long are encoded up to their stable cut right away.
        """
        if not text:
            return self
        tail = self.tail + text
        ids, first = self.ids, self.first
        if len(tail) >= cut_from and self.tokenizer.can_cut:
            cut: Encoded = self.tokenizer.encode_run(tail, first)
            if cut.ids:
                ids, tail, first = ids + cut.ids, cut.held, False
        return Prompt(self.tokenizer, ids, tail, first, self, Text(text))

    def append_encoded(self, piece: Encoded) -> Prompt:
        """`append(piece.text)` for text encoded ahead of time; the tail must be `piece.after`."""
        if not piece.text:
            return self
        if self.tail != piece.after:
            raise AssertionError(f"text encoded after {piece.after!r} cannot follow {self.tail!r}")
        first = self.first and not piece.ids
        return Prompt(self.tokenizer, self.ids + piece.ids, piece.held, first, self,
                      Text(piece.text))

    def special(self, token_id: int) -> Prompt:
        """This prompt followed by one control token (BOS at the very start is not doubled)."""
        if token_id == self.tokenizer.bos_id and self.parent is None:
            return self
        ids = self.token_ids() + array("q", (token_id,))
        return Prompt(self.tokenizer, ids, "", False, self, Special(token_id))

    def image(self, image: PlacedImage, text: str = "<image>") -> Prompt:
        """This prompt followed by an image, which texts show as `text`."""
        return Prompt(self.tokenizer, self.token_ids() + image.ids, "", False, self,
                      Image(image, text))

    def generated(self, ids: tuple[int, ...], text: str | None = None) -> Prompt:
        """This prompt followed by generated tokens; `text` is their decoding, if known."""
        if text is None:
            text = self.tokenizer.decode(ids)
        full = self.token_ids() + array("q", ids)
        return Prompt(self.tokenizer, full, "", False, self, Generated(ids, text))

    def healed(self, held: tuple[int, ...], ids: tuple[int, ...], text: str) -> Prompt:
        """This prompt with its last ids, `held`, given up for generated `ids`, which spell them
        and then `text`.

        Where the last run of text does not end in these ids, `text` is added instead, and a
        border.
        """
        full = self.token_ids()
        kept = len(full) - len(held)
        if kept < self.run_start() or tuple(full[kept:]) != held:
            return self.append(text).generated((), "")
        return Prompt(self.tokenizer, full[:kept] + array("q", ids), "", False, self,
                      Generated(ids, text, held))

    def run_start(self) -> int:
        """How many ids there are before the last run of text (all, right behind a border)."""
        node = self
        while node.parent is not None and isinstance(node.span, Text):
            node = node.parent
        return len(node.token_ids())

    def encoded(self, text: str) -> Encoded:
        """`text` encoded in the context of this prompt, for `append_encoded` on equal tails."""
        after = self.append(text, 0)
        return Encoded(text, after.ids[len(self.ids):], after.tail, self.tail)

    def append_span(self, span: Span) -> Prompt:
        if isinstance(span, Text):
            return self.append(span.text)
        if isinstance(span, Special):
            return self.special(span.id)
        if isinstance(span, Image):
            return self.image(span.image, span.text)
        if span.held:
            return self.healed(span.held, span.ids, span.text)
        return self.generated(span.ids, span.text)

    def append_since(self, child: Prompt, base: Prompt) -> Prompt:
        """This prompt with the spans that `child` added after `base`, generated ids kept."""
        out = self
        for span in child.spans(base):
            out = out.append_span(span)
        return out

    def spans(self, base: Prompt | None = None) -> list[Span]:
        """The spans in order, from the start or from `base`, which this prompt must extend."""
        return spans_since(self, base)

    def token_ids(self) -> array:
        """All ids (an `array('q')`, to be treated as immutable)."""
        if self._full is None:
            if self.tail:
                self._full = self.ids + array(
                    "q", self.tokenizer.encode(self.tail, self.first))
            else:
                self._full = self.ids
        return self._full

    def content(self) -> array:
        """What a model is shown of this prompt: equal only for prompts that look alike to it."""
        return self.token_ids()

    def stable_ids(self) -> array:
        """The ids that no further text can change: what may be prefilled early."""
        if self.tail and self.tokenizer.can_cut:
            return self.ids + self.tokenizer.encode_run(self.tail, self.first).ids
        return self.ids

    def text(self) -> str:
        """The whole text; control tokens give none."""
        if self._text is None:
            parts: list[str] = []
            node: Prompt | None = self
            while node is not None and node._text is None:
                if not isinstance(node.span, Special) and node.span is not None:
                    parts.append(node.span.text)
                node = node.parent
            if node is not None and node._text:
                parts.append(node._text)
            parts.reverse()
            self._text = "".join(parts)
        return self._text

    def text_since(self, base: Prompt) -> str:
        """The text added after `base`."""
        return "".join([s.text for s in self.spans(base) if not isinstance(s, Special)])

    def __repr__(self) -> str:
        return f"Prompt({self.text()!r})"
