"""A backend in this process: an engine core, its tokenizer and its chat template."""

from __future__ import annotations

import gc
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sglc import config
from sglc.config import RunOptions
from sglc.errors import LanguageError
from sglc.plan.cost import Machine
from sglc.plan.step_costs import StepCost
from sglc.runtime import calls
from sglc.runtime.keys import fresh_seed
from sglc.runtime.recording import Recording
from sglc.runtime.request import Request, Result


@dataclass(frozen=True, slots=True)
class Generation:
    """One result of `engine.generate`: text, ids, log-probabilities, why it ended."""

    text: str
    ids: list[int]
    logprobs: list[float | None] | None
    finish_reason: str
    meta: dict[str, Any]


INERT: ContextVar[bool] = ContextVar("sglc_inert_backends", default=False)
"""While set, constructing a backend gives an `InertBackend`: a script is only being compiled."""


class InertBackend:
    """Stands for a backend of a script that is compiled, not run.  Opens and contacts nothing."""

    tokenizer = template = calls = None

    def submit(self, requests: Sequence[Request]) -> None:
        raise LanguageError("SGLC010", "this script is being compiled; no backend is open")

    def __enter__(self) -> InertBackend:
        return self

    def __exit__(self, *exc: Any) -> None:
        pass

    def close(self) -> None:
        """Nothing is open."""


class LocalBackend:
    """What programs need of an in-process engine.  Also a context manager.

    Subclasses pass the engine core (see `runtime/engine.py`), the tokenizer and the template.
    """

    calls: calls.Calls = calls

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return InertBackend() if INERT.get() else super().__new__(cls)

    def __init__(self, core: Any, tokenizer: Any, template: Any, *, seed: int | None = 0) -> None:
        self.core = core
        self.tokenizer = tokenizer
        self.template = template
        self.seed = fresh_seed() if seed is None else seed
        self.step_cost: StepCost | None = None  # see `calibrate`
        if gc.get_freeze_count() == 0:
            # Libraries leave half a million objects; going through them again and again took
            # half of the time of a batch of small programs (bench/frontend_overhead.py).
            gc.freeze()

    # -- for the interpreter and the executor ---------------------------------------------
    def submit(self, requests: Sequence[Request]) -> None:
        self.core.submit(requests)

    def cancel(self, requests: Sequence[Request]) -> None:
        self.core.cancel(requests)

    def new_space(self, apart: bool = False) -> int | None:
        """A sharing space for one planned run, or `apart` for a tenant (see `Request.space`)."""
        return self.core.new_space(apart)  # type: ignore[no-any-return]

    def drop_space(self, space: int | None) -> None:
        if space is not None:
            self.core.drop_space(space)

    def pin(self, rank: tuple[int, ...] = (), *, uses: int | None = None,
            tokens: int = 0, peak: int = 0) -> Any:
        """A pin for requests to name (see `EngineCore.pin`)."""
        return self.core.pin(rank, uses=uses, tokens=tokens, peak=peak)

    def unpin(self, pin: Any, *, free: bool = False) -> None:
        """End a pin."""
        self.core.unpin(pin, free=free)

    @property
    def plan_memory(self) -> int | None:
        """The KV tokens to plan batches for; None where the policy follows no plan."""
        return self.core.kv_tokens if self.core.policy == "planned" else None

    # -- for users ------------------------------------------------------------------------
    def stats(self) -> Any:
        """Counters since the start: prefill_tokens, cached_tokens, decode_tokens, ..."""
        return self.core.stats()

    def calibrate(self) -> StepCost:
        """Measure what a model step costs, for the cost model's times; kept with the backend.

        Runs a few small requests and empties the cache; waits until nothing else runs.
        """
        from sglc.backends.calibrate import calibrate

        self.step_cost = calibrate(self.core)
        return self.step_cost

    def machine(self) -> Machine:
        """What the cost model needs to know of this engine."""
        core = self.core
        return Machine(core.kv_tokens, core.runner.context_length, core.max_batch_tokens,
                       core.max_running, self.step_cost)

    @contextmanager
    def record(self) -> Iterator[Recording]:
        """Inside the block, note the ids of every request."""
        recording = Recording()
        self.core.record(recording)
        try:
            yield recording
        finally:
            self.core.record(None)

    def use_policy(self, policy: str) -> None:
        """Schedule by another policy, from an empty cache; not while something runs."""
        self.core.use_policy(policy)

    def flush_cache(self) -> None:
        """Forget all cached KV that no running request uses."""
        self.core.flush_cache()

    def close(self) -> None:
        """Stop the engine; pending requests fail with SGLC503."""
        self.core.close()

    def __enter__(self) -> LocalBackend:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def generate(self, prompts: str | Sequence[str] | None = None, *,
                 input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
                 sampling: dict[str, Any] | Sequence[dict[str, Any]] | None = None) -> Any:
        """Continue raw prompts (control tokens in them are parsed) or id lists, as one batch.

        sampling: keywords of `run()` such as `max_new_tokens`, `temperature`, `stop`, `regex`,
        one dict for all or one each.  A single prompt gives a single Generation.
        """
        single, rows = self._rows(prompts, input_ids)
        each = list(sampling) if isinstance(sampling, (list, tuple)) else [sampling or {}] * len(
            rows)
        if len(each) != len(rows):
            raise LanguageError("SGLC001", f"{len(rows)} prompts but {len(each)} sampling dicts")
        options = [_options(s) for s in each]
        results: list[Result | None] = [None] * len(rows)
        left = threading.Semaphore(0)
        requests = []
        for i, (ids, opt) in enumerate(zip(rows, options, strict=True)):
            def done(r: Result, i: int = i) -> None:
                results[i] = r
                left.release()

            key = calls.gen_keys(opt, self.seed, i, (0,))[0]
            requests.append(Request("generate", ids, done, calls.sampling_params(opt), key,
                                    calls.constraint_for(opt, self.tokenizer)))
        self.submit(requests)
        try:
            for _ in rows:
                left.acquire()
        except BaseException:
            self.cancel(requests)
            raise
        out = []
        for r, ids, opt in zip(results, rows, options, strict=True):
            assert r is not None
            if r.error is not None:
                raise r.error
            meta = calls.gen_meta(r, opt, self.tokenizer, ids, None)
            out.append(Generation(r.text, list(r.ids), list(r.logprobs) or None,
                                  r.finish_reason, meta))
        return out[0] if single else out

    def _rows(self, prompts: Any, input_ids: Any) -> tuple[bool, list[array]]:
        if (prompts is None) == (input_ids is None):
            raise LanguageError("SGLC001", "generate takes prompts or input_ids, one of them")
        if prompts is not None:
            single = isinstance(prompts, str)
            texts = [prompts] if single else list(prompts)
            return single, [array("q", self.tokenizer.encode_raw(t)) for t in texts]
        single = len(input_ids) > 0 and isinstance(input_ids[0], int)
        return single, [array("q", row) for row in ([input_ids] if single else input_ids)]


_ALIASES = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens",
            "sampling_seed": "seed"}


def _options(given: dict[str, Any]) -> RunOptions:
    from dataclasses import fields, replace

    values = {_ALIASES.get(k, k): v for k, v in given.items()}
    unknown = set(values) - {f.name for f in fields(RunOptions)}
    if unknown:
        raise LanguageError("SGLC004", f"unknown sampling options: {', '.join(sorted(unknown))}")
    options = replace(RunOptions(), **config.check(values))
    if options.heal:
        raise LanguageError("SGLC008", "generate does not take: heal",
                            why="raw prompts are tokens, with no text to heal")
    return config.resolve(config.GenParams(dtype=options.dtype, seed=options.seed), options)
