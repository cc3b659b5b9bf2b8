"""Turning requests into sequences: what is asked for is checked here, once, and errors that can
be known at once are raised at once.

Limits.  A prompt must leave room for one token in the model's context (SGLC501) and in the KV
pool (SGLC502).  A generation that would outgrow either is cut there, with finish reason
"length", whatever else is running.
"""

from __future__ import annotations

import re
from array import array

import numpy as np

from sglc.errors import EngineError
from sglc.runtime.canonical import Canonical
from sglc.runtime.radix import Node
from sglc.runtime.request import Request
from sglc.runtime.sampler import Draw
from sglc.runtime.sequence import Sequence
from sglc.runtime.stops import StopWatcher
from sglc.tokens.tokenizer import Tokenizer


class Admission:
    """Checks requests against one model, tokenizer and pool.

    jumps: whether constrained requests append tokens without alternative, or sample them.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, context_length: int,
                 kv_tokens: int, *, jumps: bool) -> None:
        self.table = tokenizer.byte_table
        self._tokenizer = tokenizer
        self._jumps = jumps
        self._canonical: Canonical | None = None  # made for the first constraint
        self.eos = frozenset(tokenizer.eos_ids)
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.kv_tokens = kv_tokens
        words = np.full((tokenizer.vocab_size + 31) // 32, 0xFFFFFFFF, dtype=np.uint32)
        for i in self.eos:
            words[i >> 5] &= ~np.uint32(1 << (i & 31))
        self._open_ids = words.view(np.int32)

    def open(self, request: Request, arrival: int, root: Node, private: bool) -> Sequence:
        """The sequence for a request; it may be `finished` already.

        Raises EngineError: SGLC501, SGLC502, or SGLC507 for a request that makes no sense.
        """
        ids = array("q", request.ids)
        n = len(ids)
        if n and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            raise EngineError("SGLC507", "the prompt has ids outside the model's vocabulary",
                              why=f"ids must lie in 0 .. {self.vocab_size - 1}")
        if request.kind == "score":
            return self._score(request, arrival, ids, root, private)
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

    def _score(self, request: Request, arrival: int, ids: array[int], root: Node,
               private: bool) -> Sequence:
        n = len(ids)
        want = max(request.score_from, 1) - 1
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

    def _configure(self, seq: Sequence) -> None:
        request = seq.request
        params = request.sampling
        stop_ids = frozenset(params.stop_token_ids)
        # The end of a constrained text is its end, even with ignore_eos.
        ends = not params.ignore_eos or request.constraint is not None
        watcher = None
        if params.stop or params.stop_regex or request.on_text is not None:
            try:
                watcher = StopWatcher(self.table, params.stop, params.stop_regex,
                                      trim=not params.no_stop_trim)
            except re.error as error:
                raise EngineError("SGLC507", f"a stop pattern is not a regular expression: "
                                             f"{error}") from error
        constraint = request.constraint
        draw = Draw(params, request.key, stop_ids=self.eos | stop_ids,
                    constrained=constraint is not None, prompt=seq.ids)
        seq.configure(draw, stop_ids | self.eos if ends else stop_ids, watcher)
        if constraint is not None:
            if self._canonical is None:
                self._canonical = Canonical(
                    self._tokenizer, min(self.vocab_size, self._tokenizer.vocab_size))
            # Log-probabilities need the model's word on every token.
            told = (params.logprobs or params.top_logprobs > 0
                    or request.want_prompt_logprobs_from is not None)
            seq.constrain(constraint, self._open_ids, self._canonical, self._jumps and not told)
