"""The in-process engine: a model, its KV pool and radix cache behind `submit`.

This is the face of the runtime.  Requests carry token ids; prompts, programs and plans are the
caller's.  Results do not depend on what runs beside a request, on the cache, or on chunking.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from sglc.runtime.admission import Admission
from sglc.runtime.batch import Runner
from sglc.runtime.launch import Launcher
from sglc.runtime.loop import EngineLoop
from sglc.runtime.request import Request
from sglc.runtime.sampler import Sampler
from sglc.runtime.scheduler import Scheduler
from sglc.tokens.tokenizer import Tokenizer

_EXIT_SECONDS = 2.0  # how long the interpreter's exit waits for a running step


@dataclass(frozen=True, slots=True)
class Stats:
    """Work done since the engine was made, and the KV pool now.  Tokens, unless said otherwise.

    prefill_tokens: prompt positions whose KV was computed (after a retraction or an eviction,
        again).  cached_tokens: prompt positions whose KV was found.  decode_tokens: sampled
        tokens whose KV was computed while decoding.  forced_tokens: tokens appended without
        sampling (their KV is neither prefill nor decode).  recomputed_tokens: positions run
        again for their hidden state only.
    forward_passes: model steps.  retractions: sequences sent back to wait.
    kv_free + kv_cached + kv_in_use == kv_total, always.
    model_seconds: time inside the model (forward and LM head).
    """

    prefill_tokens: int
    cached_tokens: int
    decode_tokens: int
    forced_tokens: int
    recomputed_tokens: int
    forward_passes: int
    retractions: int
    kv_free: int
    kv_cached: int
    kv_in_use: int
    kv_total: int
    model_seconds: float


class EngineCore:
    """Serves requests on one model, on one daemon thread that starts with the first request.

    kv_tokens: KV slots.  radix_cache: keep and share KV between requests; without it, KV is
    shared only within a space from `new_space`.  max_batch_tokens: new tokens a step.
    max_running: sequences at once (at most `max_batch_tokens`).  jump_forward: "safe" appends
    the tokens that a constraint leaves no choice about, "off" samples them; the ids are the same.

    The engine owns the runner: it allocates its KV and closes it.
    """

    def __init__(self, runner: Runner, tokenizer: Tokenizer, *, kv_tokens: int,
                 radix_cache: bool = True, max_batch_tokens: int = 512,
                 max_running: int = 256, jump_forward: str = "safe") -> None:
        if jump_forward not in ("safe", "off"):
            raise ValueError(f'jump_forward is "safe" or "off", not {jump_forward!r}')
        if max_batch_tokens < 1 or max_running < 1 or kv_tokens < 2:
            raise ValueError("an engine needs room for two tokens of KV and one of a step")
        self.runner = runner
        self.tokenizer = tokenizer
        self.kv_tokens = kv_tokens
        self.radix_cache = radix_cache
        runner.allocate(kv_tokens)
        vocab = min(runner.vocab_size, tokenizer.vocab_size)
        never = tokenizer.special_ids - tokenizer.eos_ids
        self._loop = EngineLoop(
            Admission(tokenizer, runner.vocab_size, runner.context_length, kv_tokens,
                      jumps=jump_forward == "safe"),
            Launcher(runner, Sampler(vocab, never)),
            kv_tokens=kv_tokens, max_tokens=max_batch_tokens, max_running=max_running,
            radix_cache=radix_cache)
        self._finalizer = weakref.finalize(self, self._loop.stop, _EXIT_SECONDS)

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests; from any thread, callbacks included.  They are taken in together.

        Each ends with one call of its `on_done`, on the engine's thread, with a result or an
        error (SGLC501, 502, 503, 505, 506, 507) in it.  After `close`, with SGLC503 at once, on
        the calling thread.
        """
        self._loop.submit(requests)

    def cancel(self, requests: Sequence[Request]) -> None:
        """End these requests with SGLC506 (`Cancelled`) within one step, finished ones apart."""
        self._loop.cancel(requests)

    def new_space(self) -> int:
        """A sharing space: requests that name it share KV.  With the radix cache on, all spaces
        are the engine's one cache."""
        return self._loop.new_space()

    def drop_space(self, space: int) -> None:
        """End a space of `new_space`; its KV is freed as soon as nothing running reads it.
        Requests that were taken in before still finish."""
        self._loop.drop_space(space)

    def flush_cache(self) -> int:
        """Free all KV that no running request reads (all of it when idle); how many tokens."""
        return self._loop.flush()

    def stats(self) -> Stats:
        """A consistent snapshot, from any thread."""

        def read(scheduler: Scheduler, launcher: Launcher) -> Stats:
            counters, pool = scheduler.counters, scheduler.pool
            return Stats(
                prefill_tokens=counters.prefill, cached_tokens=counters.cached,
                decode_tokens=counters.decode, forced_tokens=counters.forced,
                recomputed_tokens=counters.recomputed, forward_passes=counters.passes,
                retractions=counters.retractions, kv_free=pool.free,
                kv_cached=scheduler.tree.cached, kv_in_use=scheduler.in_use,
                kv_total=pool.total, model_seconds=launcher.model_seconds)

        snapshot: Stats = self._loop.read(read)
        return snapshot

    def check(self) -> None:
        """Assert the accounting of KV: every slot owned once, every lock by a sequence."""
        self._loop.read(lambda scheduler, _: scheduler.check())

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until no request is left and all callbacks have run; False after `timeout` s."""
        return self._loop.wait_idle(timeout)

    def close(self) -> None:
        """End pending requests with SGLC503, stop the thread, close the model.  Idempotent."""
        self._finalizer.detach()
        self._loop.stop()

    def __enter__(self) -> EngineCore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
