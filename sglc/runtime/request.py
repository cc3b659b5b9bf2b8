"""What an engine is asked for and what it answers: plain data, no scheduling, no model.

Three kinds of request exist.  `generate` continues a prompt; `score` returns the log-probability
of given tokens; `prefill` only makes a prompt's KV available.  (A `ride` is the engine's own: see
`rides.py`.)  A request carries token ids: who asks decides about text, prompts and variables.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sglc.errors import SglcError
from sglc.runtime.pins import Pin
from sglc.tokens.images import PlacedImage


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen.  Defaults are SGLang's `run()` defaults (see docs)."""

    max_tokens: int = 128
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_regex: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    no_stop_trim: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()  # (id, what is added to its logit) ...
    logprobs: bool = False  # log-probabilities of the chosen tokens
    top_logprobs: int = 0  # and of this many best tokens a step

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken (ties: the lowest id)."""
        return self.temperature < 1e-6 or self.top_k == 1


FinishReason = Literal["stop", "length", "eos", "constraint", "abort"]


@dataclass(slots=True)
class Result:
    """The outcome of a request.  After an error, only `error` (and the counts) are set.

    generate: `ids` are the kept tokens (without EOS, and wholly before the stop string), `text`
        their decoding plus `leftover`; `leftover` is text between the last kept token and the
        stop string (part of the next text run).  `output_tokens` counts all sampled and forced
        tokens.  `started`: `perf_counter()` when it was first scheduled, 0 if nothing had to be
        computed.  `logprobs[i]` belongs to `ids[i]`.
    score: `logprobs[i]` is that of `ids[score_from + i]`; None for position 0.  With choices,
        `choices[i]` are those of choice i.
    """

    ids: tuple[int, ...] = ()
    text: str = ""
    leftover: str = ""
    finish_reason: FinishReason = "stop"
    matched: str | int | None = None  # the stop string or stop token id that ended it
    logprobs: tuple[float | None, ...] = ()
    top_logprobs: tuple[tuple[tuple[float, int], ...], ...] = ()  # a step: (logprob, id) ...
    choices: tuple[tuple[float | None, ...], ...] = ()
    prompt_logprobs: tuple[float | None, ...] = ()  # see Request.want_prompt_logprobs_from
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    started: float = 0.0
    error: SglcError | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One request.  `on_done` is called exactly once, on the engine's thread, and must not block.

    ids: the prompt (`array('q')`, not modified).
    sampling, key: `key` is the 64-bit sampling key (see `sampler.py`); unused when greedy.
    constraint: a compiled `sglc.grammar` constraint or None.
    score_from: for `score`, the first position whose log-probability is wanted.
    choices: for `score`, what may follow `ids`, each at least one token: the log-probabilities of
        their tokens are wanted (and `score_from` is of no account).
    rides: what may follow `ids` when its outcome is known, that outcome included: read beside it
        where that is free (see `rides.py`).
    space: sharing space.  KV is shared between requests of one space.  None is the engine's own
        cache (with the radix cache off: a private space of this request).
    priority: the plan's key; smaller goes first among waiting requests; ties by arrival.
    bound: a tight upper bound on its new tokens, if one is known (a regex, choices): memory for
        as many is kept free, and the request is not sent back to wait.
    pins: (pin, n): when the request ends, `pin` holds the KV of its first n tokens, or of all
        of them if n is None (see `pins.py`).
    continues: it goes on in place where a request that has just ended stopped: it starts ahead of
        all that waits, and counts as a part of that one.
    held: tokens that belong to the prompt and are to be generated again first, or one in their
        place that spells more (token healing, see `grammar/prefixed.py`): the constraint, stops
        and texts of the result and of streams begin behind them; the result's `ids` are all
        generated tokens, none if these do not spell all that was held.
    images: those whose ids are in `ids`; they are kept as long as the request is.
    on_text: for streams, called on the engine's thread with each new piece of final text.
    """

    kind: Literal["generate", "score", "prefill", "ride"]
    ids: array
    on_done: Callable[[Result], None]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    key: int = 0
    constraint: Any = None
    score_from: int = 0
    choices: tuple[array, ...] = ()
    rides: tuple[array, ...] = ()
    space: int | None = None
    priority: tuple[int, ...] = ()
    bound: int | None = None
    pins: tuple[tuple[Pin, int | None], ...] = ()
    on_text: Callable[[str], None] | None = None
    continues: bool = False
    held: tuple[int, ...] = ()
    images: tuple[PlacedImage, ...] = ()
    want_prompt_logprobs_from: int | None = None  # generate: also score the prompt from here
    cancelled: bool = False  # set by anyone; the engine ends the request with `Cancelled` soon
