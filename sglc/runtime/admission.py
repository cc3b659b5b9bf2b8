"""Turning requests into sequences: what is asked for is checked here, once, and errors that can
be known at once are raised at once.

Limits.  A prompt must leave room for one token in the model's context (SGLC501) and in the KV
pool (SGLC502).  A generation that would outgrow either is cut there, with finish reason
"length", whatever else is running.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable

import numpy as np

from sglc.errors import EngineError
from sglc.grammar.canonical import Canonical
from sglc.grammar.prefixed import prefixed
from sglc.runtime.choices import Choices
from sglc.runtime.radix import Node
from sglc.runtime.request import Request
from sglc.runtime.rides import Rides
from sglc.runtime.rules import Rules
from sglc.runtime.sampler import Draw
from sglc.runtime.sequence import Sequence
from sglc.runtime.stops import StopWatcher
from sglc.tokens.images import FIRST_ID, PlacedImage, covered
from sglc.tokens.tokenizer import Tokenizer

TIGHT = 64  # a bound on new tokens that is always worth keeping memory free for


class Admission:
    """Checks requests against one model, tokenizer and pool.

    jumps: whether constrained requests append tokens without alternative, or sample them.
    aside: where constraints' tables for a device are made (see `Rules`).
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, context_length: int,
                 kv_tokens: int, *, jumps: bool,
                 aside: Callable[[Callable[[], None]], None] | None = None) -> None:
        self.table = tokenizer.byte_table
        self._tokenizer = tokenizer
        self._jumps = jumps
        self.eos = frozenset(tokenizer.eos_ids)
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.kv_tokens = kv_tokens
        words = np.full((tokenizer.vocab_size + 31) // 32, 0xFFFFFFFF, dtype=np.uint32)
        for i in self.eos:
            words[i >> 5] &= ~np.uint32(1 << (i & 31))
        self.rules = Rules(words.view(np.int32),
                           lambda: Canonical.of(tokenizer, vocab_size), aside)

    def open(self, request: Request, arrival: int, root: Node, private: bool) -> Sequence:
        """The sequence for a request; it may be `finished` already.

        Raises EngineError: SGLC501, SGLC502, or SGLC507 for a request that makes no sense.
        """
        seq = self._open(request, arrival, root, private)
        if request.rides and not private:
            self._add_rides(seq)
        return seq

    def _open(self, request: Request, arrival: int, root: Node, private: bool) -> Sequence:
        ids = array("q", request.ids)
        n = len(ids)
        if _outside(ids, self.vocab_size, request.images):
            raise EngineError("SGLC507", "the prompt has ids outside the model's vocabulary",
                              why=f"ids must lie in 0 .. {self.vocab_size - 1}")
        if request.kind == "score":
            if request.choices:
                return self._choices(request, arrival, root, private)
            return self._score(request, arrival, ids, request.score_from, root, private)
        if request.kind not in ("generate", "prefill"):
            raise EngineError("SGLC507", f"requests of kind {request.kind!r} do not exist")
        samples = request.kind == "generate" and request.sampling.max_tokens > 0
        self._check_size(n, n + samples, n + samples)
        if not n and samples:
            raise EngineError("SGLC507", "an empty prompt cannot be continued",
                              why="a model predicts tokens after at least one token",
                              fixes=["start the prompt with some text, or with BOS"])
        limit = 0
        if samples:
            limit = min(request.sampling.max_tokens, self.context_length - n,
                        self.kv_tokens - n + 1)
        want, score_end = n - 1, 0
        if request.kind == "generate" and request.want_prompt_logprobs_from is not None:
            want = min(n - 1, max(request.want_prompt_logprobs_from, 1) - 1)
            score_end = n - 1
        seq = Sequence(request, arrival, ids=ids, root=root, private=private, target=n,
                       want=max(want, 0), score_end=score_end, limit=limit)
        if samples:
            self._configure(seq)
        elif not n:
            seq.complete()
        return seq

    def _add_rides(self, seq: Sequence) -> None:
        """What may ride along with a sequence; what the model could not read is left out."""
        request, arrival, root = seq.request, seq.arrival, seq.root
        longest = min(self.context_length, self.kv_tokens)
        rows = [row for row in request.rides
                if row and len(request.ids) + len(row) <= longest
                and not _outside(row, self.vocab_size)]

        def make(ride: Request) -> Sequence:
            n = len(ride.ids)
            return Sequence(ride, arrival, ids=ride.ids, root=root, private=False, target=n,
                            want=n - 1, score_end=0, limit=0)

        if rows:
            seq.rides = Rides(request, rows, make)

    def _choices(self, request: Request, arrival: int, root: Node, private: bool) -> Sequence:
        """The sequence of the choice that goes ahead; its `group` opens the others."""
        base = request.ids
        for ids in request.choices:
            n = len(base) + len(ids)
            self._check_size(n, n, n - 1)
            if not ids or _outside(ids, self.vocab_size):
                raise EngineError("SGLC507", "a choice has ids outside the model's vocabulary, "
                                  "or none", why=f"ids must lie in 0 .. {self.vocab_size - 1}")

        def make(i: int) -> Sequence:
            seq = self._score(request, arrival, base + request.choices[i], len(base), root,
                              private)
            seq.group, seq.number = group, i
            return seq

        group = Choices(request, make)
        return make(group.lead)

    def _score(self, request: Request, arrival: int, ids: array[int], first: int, root: Node,
               private: bool) -> Sequence:
        n = len(ids)
        want = max(first, 1) - 1
        target = n - 1 if want < n - 1 else 0  # the last token is scored, not read
        self._check_size(n, n, target)
        seq = Sequence(request, arrival, ids=ids, root=root, private=private, target=target,
                       want=want, score_end=target, limit=0)
        if not target:
            seq.complete()
        return seq

    def _check_size(self, n: int, length: int, kv: int) -> None:
        if length > self.context_length:
            raise EngineError("SGLC501", f"{n} tokens do not fit the model's context",
                              why=f"the model reads at most {self.context_length} tokens",
                              fixes=["shorten the prompt", "use a model with a longer context"])
        if kv > self.kv_tokens:
            raise EngineError("SGLC502", f"{n} tokens do not fit the KV pool",
                              why=f"the pool holds {self.kv_tokens} tokens",
                              fixes=["raise kv_tokens", "shorten the prompt"])

    @staticmethod
    def _bind(seq: Sequence) -> None:
        """How many tokens it may come to, and whether that is worth keeping free."""
        request, params = seq.request, seq.request.sampling
        fixed = params.ignore_eos and request.constraint is None and not (
            params.stop or params.stop_regex or params.stop_token_ids)
        if request.bound is not None:
            seq.bound = max(1, min(seq.limit, request.bound))
        seq.tight = fixed or request.bound is not None or seq.bound <= TIGHT

    def _configure(self, seq: Sequence) -> None:
        request = seq.request
        params = request.sampling
        self._bind(seq)
        stop_ids = frozenset(params.stop_token_ids)
        # The end of a constrained text is its end, even with ignore_eos.
        ends = not params.ignore_eos or request.constraint is not None
        watcher = None
        skip = sum([len(self.table[i]) for i in request.held])
        if params.stop or params.stop_regex or request.on_text is not None:
            try:
                watcher = StopWatcher(self.table, params.stop, params.stop_regex,
                                      trim=not params.no_stop_trim, skip=skip)
            except re.error as error:
                raise EngineError("SGLC507", f"a stop pattern is not a regular expression: "
                                             f"{error}") from error
        constraint = request.constraint
        if request.held:
            constraint = prefixed(request.held, constraint, self._tokenizer)
        text = seq.ids if not request.images else [i for i in seq.ids if i < FIRST_ID]
        draw = Draw(params, request.key, stop_ids=self.eos | stop_ids,
                    constrained=constraint is not None, prompt=text)
        seq.configure(draw, stop_ids | self.eos if ends else stop_ids, watcher)
        if constraint is not None:
            # Log-probabilities need the model's word on every token.
            told = (params.logprobs or params.top_logprobs > 0
                    or request.want_prompt_logprobs_from is not None)
            seq.constrain(self.rules.of(constraint), self._jumps and not told)


def _outside(ids: array[int], size: int, images: tuple[PlacedImage, ...] = ()) -> bool:
    """Whether an id is not below `size`, and no position of these images; looping over long
    prompts took a third of the time before their first step."""
    if not len(ids) or np.frombuffer(ids, np.uint64).max() < size:  # below 0 is far above
        return False
    numbers = np.frombuffer(ids, np.int64)
    more = numbers[(numbers < 0) | (numbers >= size)]
    return bool(more.min() < FIRST_ID) or not covered(images, more.tolist())
