"""What a model call reads and writes, before it runs or given what it gave.

The rules are the runtime's (`runtime/calls.py`, `admission.py`): which ids each request asks for,
which of them are read, and how many tokens it may add.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sglc.config import GenParams, RunOptions, resolve
from sglc.ir.module import Op
from sglc.ir.ops import CONSTRAINT_ATTRS, SAMPLING_ATTRS
from sglc.plan.drafts import UNBOUNDED, Border, Draft, Drafts, Open
from sglc.plan.open_values import either, is_known, unknown
from sglc.plan.prefix_tree import Node, PrefixTree, Span
from sglc.tokens.tokenizer import Tokenizer

USUAL = 64  # tokens that a gen is expected to write, where more are allowed


@dataclass(frozen=True, slots=True)
class Told:
    """What a call of a run gave.

    value: of the variable, or what a host call returned.  ids: the tokens that a gen kept, None
    for a select or a host call; text, leftover: as in the runtime's `Outcome`.  counts: how many
    tokens were sampled or forced, for each sample.
    """

    value: Any = None
    ids: tuple[int, ...] | None = None
    text: str = ""
    leftover: str = ""
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """The tokens that a gen samples and reads, or that are forced, of all its samples: expected,
    and at most; exact where no other number can be."""

    expected: float = 0.0
    most: int = 0
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Setting:
    """What a batch runs under.  stop: the template's stop strings; lengths: tokens that gens are
    expected to write, by name; counts: in how many rows each text is, where bags are ordered."""

    tokenizer: Tokenizer
    template: Any
    options: RunOptions
    lengths: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] | None = None

    @property
    def stop(self) -> tuple[str, ...]:
        return tuple(getattr(self.template, "stop", ()))


class CallDrafts:
    """Goes through calls on drafts in one tree."""

    def __init__(self, tree: PrefixTree, setting: Setting) -> None:
        self.tree = tree
        self.setting = setting
        self.drafts = Drafts(tree, setting.tokenizer)
        # The bytes that a token adds to a text at most: U+FFFD, three, stand for invalid ones.
        self.longest = max([len(piece.decode("utf-8", "replace").encode())
                            for piece in setting.tokenizer.byte_table], default=1)

    def options(self, op: Op) -> RunOptions:
        """The options in force for a gen."""
        given = {k: v for k, v in op.attrs.items() if k in SAMPLING_ATTRS}
        return resolve(GenParams(**given), self.setting.options)

    def samples(self, op: Op) -> bool:
        """Whether a gen surely asks the model: not if a constraint may dictate all its tokens."""
        options = self.options(op)
        if _free(options):
            return True
        if not any(name in op.attrs for name in CONSTRAINT_ATTRS):
            return False  # nothing is known of the constraint
        most: int = min(options.max_tokens, op.attrs.get("most_tokens", options.max_tokens))
        return len(op.attrs.get("forced", ())) < most

    def gen(self, op: Op, draft: Draft, key: Hashable, told: Told | None) -> tuple[
            list[Span], Written, Draft, Any]:
        """The requests of a gen, the tokens they write, the prompt behind it, and its value."""
        options = self.options(op)
        prompt = self.drafts.end(draft)
        if told is not None:
            return self._ended(options, draft, prompt, key, told)
        free = _free(options)
        stops = bool(options.stop or options.stop_regex or options.stop_token_ids
                     or self.setting.stop)
        most = options.max_tokens
        if op.attrs.get("most_tokens") is not None:
            most = min(most, op.attrs["most_tokens"])
        fixed = options.ignore_eos and free and not stops and not options.heal
        usual = self.setting.lengths.get(str(op.attrs.get("name")), USUAL)
        expected = float(most) if fixed else min(float(most), max(1.0, usual))
        if options.heal:  # what is held back is generated again
            most += self.longest
        text = unknown(("text", key), expected, min(
            UNBOUNDED, 3 * op.attrs["longest"] if "longest" in op.attrs else self.longest * most))
        if not most:
            return [Span(prompt, prompt)], Written(), self.drafts.add(
                draft, Border(array("q"))), ""
        spans = []
        for j in range(options.n):
            end = self.tree.block(prompt, ("gen", key, j), expected - 1, most - 1)
            spans.append(Span(prompt, end))
        # The last token has no KV unless the gen ended otherwise; what a constraint forces at
        # the end has none either.
        last = self.tree.block(spans[0].end, "last", float(fixed), 1 if free else most)
        after = Draft(last, before=draft, added=Border(None, text, ("gen", key), expected, most))
        if stops:
            after = self.drafts.append(after, unknown(("leftover", key), 0, self.longest))
        n = options.n
        value: Any = text if n == 1 else [text, *[unknown(("text", key, j), expected, text.most)
                                                  for j in range(1, n)]]
        # Forced tokens count whether they are read or not.
        written = Written(n * (expected - 1), n * (most - 1 if free else most), fixed)
        return spans, written, after, value

    def _ended(self, options: RunOptions, draft: Draft, prompt: Node, key: Hashable,
                 told: Told) -> tuple[list[Span], Written, Draft, Any]:
        """As `gen`, of one whose outcome is known."""
        kept = array("q", told.ids or ())
        wrote = [max(0, n - 1) for n in told.counts]
        free = _free(options)
        end = prompt
        if wrote and free and not options.heal:
            end = self.tree.extend(prompt, kept[:wrote[0]])
            if wrote[0] > len(kept):  # some was trimmed
                more = wrote[0] - len(kept)
                end = self.tree.block(end, ("trimmed", key), more, more)
        elif wrote:  # how much a constraint forced at its end is not known
            end = self.tree.block(prompt, ("gen", key, 0), wrote[0], wrote[0])
        spans = [Span(prompt, end)]
        for j, n in enumerate(wrote[1:], 1):
            spans.append(Span(prompt, self.tree.block(prompt, ("gen", key, j), n, n)))
        after = self.drafts.add(draft, Border(kept, told.text))
        if told.leftover:
            after = self.drafts.append(after, told.leftover)
        written = Written(sum(wrote), sum(wrote if free else told.counts), free)
        return spans, written, after, told.value

    def select(self, op: Op, draft: Draft, choices: Sequence[Any], key: Hashable,
               told: Told | None) -> tuple[list[Span], Draft, Any]:
        """The requests of a select, the prompt with the winner, and the winner."""
        unconditional = op.attrs.get("method") == "unconditional_likelihood_normalized"
        texts = [as_text(c, (key, i)) for i, c in enumerate(choices)]
        with_choice = [self.drafts.append(draft, t) for t in texts]
        ends: list[Node] = []
        # Known choices are told apart from a common place; the last token is not read.
        at = draft.at if not draft.open else None
        if at is not None and all(isinstance(t, str) for t in texts):
            tails = [array("q", self.setting.tokenizer.encode(draft.tail + str(t), draft.first))
                     for t in texts]
            start = _common([self.drafts.run(draft), *tails])
            for tail in tails:
                read = tail[:-1] if start < len(tail) else tail[:0]
                ends.append(self.tree.extend(at, read))
                if unconditional:
                    ends.append(self.tree.extend(self.tree.root, tail[start:-1]))
        else:
            for i, d in enumerate(with_choice):
                ends.append(self.drafts.end(d))
                if unconditional:
                    ends.append(self.tree.block(
                        self.tree.root, ("alone", key, i), _expected(texts[i]),
                        self.drafts.open_most(d)))
        spans = [Span(end, end) for end in ends]
        if told is not None:
            return spans, self.drafts.append(draft, told.text), told.value
        winner = either(texts, ("choice", key))
        if isinstance(winner, str):
            return spans, self.drafts.append(draft, winner), winner
        return spans, self.drafts.chosen(draft, winner, ("chosen", key)), winner


def as_text(value: Any, key: Hashable) -> str | Open:
    """What a value adds to a prompt."""
    return value if isinstance(value, (str, Open)) else (
        unknown(("text of", key)) if not is_known(value) else str(value))


def _free(options: RunOptions) -> bool:
    """Whether no constraint binds a gen."""
    return options.regex is None and options.json_schema is None and options.ebnf is None


def _expected(text: str | Open) -> float:
    return text.expected if isinstance(text, Open) else len(text) / 4


def _common(rows: Sequence[array[int]]) -> int:
    """The length of the longest common prefix."""
    n = min(map(len, rows))
    return next((i for i in range(n) if any(r[i] != rows[0][i] for r in rows)), n)
