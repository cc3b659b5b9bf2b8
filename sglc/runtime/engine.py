"""The in-process engine: a model, its KV pool and radix cache behind `submit`.

This is the face of the runtime.  Requests carry token ids; prompts, programs and plans are the
caller's.  Results do not depend on what runs beside a request, on the cache, or on chunking.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sglc.errors import EngineError
from sglc.runtime.admission import Admission
from sglc.runtime.batch import Runner
from sglc.runtime.launch import Launcher
from sglc.runtime.loop import EngineLoop
from sglc.runtime.overlapped import OverlappedLoop
from sglc.runtime.pins import Pin
from sglc.runtime.policies import make_policy
from sglc.runtime.recording import Recording
from sglc.runtime.request import Request
from sglc.runtime.rules import Aside
from sglc.runtime.sampler import Sampler
from sglc.runtime.scheduler import Scheduler
from sglc.runtime.slot_check import check_slots
from sglc.tokens.tokenizer import Tokenizer

_CHOICES = 4  # steps' worth of tokens that one step takes for the choices of a request
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
    kv_free + kv_cached + kv_in_use == kv_total, always.  kv_peak: the most that kv_in_use was in
        any step since the start, or since `reset_peak`.
    requests: how many there were; one that goes on in place where another stopped counts as a
        part of that.
    model_seconds: time inside the model (forward and LM head).
    images_encoded: images that the vision tower looked at.  failed_steps: model steps that ended
        in an error.
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
    kv_peak: int
    requests: int
    model_seconds: float
    images_encoded: int = 0
    failed_steps: int = 0


class EngineCore:
    """Serves requests on one model, on one daemon thread that starts with the first request.

    kv_tokens: KV slots.  radix_cache: keep and share KV between requests; without it, KV is
    shared only within a space from `new_space`.  max_batch_tokens: new tokens a step (on the CPU
    up to four times as many where that takes all choices of a request in one step).
    max_running: sequences at once (at most `max_batch_tokens`).  jump_forward: "safe" appends
    the tokens that a constraint leaves no choice about, "off" samples them; the ids are the same.
    policy: who goes when, by name (see `policies/`); the ids are the same under each.
    ride_tokens: how many tokens a step takes at next to no cost beside those of a request whose
    outcome decides what comes next: others' tokens, and branches that are read in vain (see
    `rides.py`); 0 reads no branch ahead.  Only the planned policy does.
    A runner with a method `launcher(sampler)` brings its own, and steps overlap (`overlapped.py`).

    The engine owns the runner: it allocates its KV and closes it.
    """

    def __init__(self, runner: Runner, tokenizer: Tokenizer, *, kv_tokens: int,
                 radix_cache: bool = True, max_batch_tokens: int = 512,
                 max_running: int = 256, jump_forward: str = "safe",
                 policy: str = "planned", ride_tokens: int = 0) -> None:
        if jump_forward not in ("safe", "off"):
            raise ValueError(f'jump_forward is "safe" or "off", not {jump_forward!r}')
        if max_batch_tokens < 1 or max_running < 1 or kv_tokens < 2:
            raise ValueError("an engine needs room for two tokens of KV and one of a step")
        make_policy(policy)  # an unknown name is an error before memory is taken
        self.runner = runner
        self.tokenizer = tokenizer
        self.policy = policy
        self.kv_tokens = kv_tokens
        self.radix_cache = radix_cache
        self.max_batch_tokens, self.max_running = max_batch_tokens, max_running
        runner.allocate(kv_tokens)
        vocab = min(runner.vocab_size, tokenizer.vocab_size)
        never = tokenizer.special_ids - tokenizer.eos_ids
        sampler = Sampler(vocab, never)
        on_device = getattr(runner, "launcher", None)
        loop: Callable[..., EngineLoop] = OverlappedLoop if on_device else EngineLoop
        launcher = on_device(sampler) if on_device else Launcher(runner, sampler)
        admission = Admission(tokenizer, runner.vocab_size, runner.context_length, kv_tokens,
                              jumps=jump_forward == "safe", aside=Aside() if on_device else None)
        if on_device:
            launcher.clock = admission.rules.clock
        self._loop = loop(
            admission, launcher,
            kv_tokens=kv_tokens, max_tokens=max_batch_tokens, max_running=max_running,
            radix_cache=radix_cache, policy=partial(make_policy, policy),
            max_choice_tokens=0 if on_device else _CHOICES * max_batch_tokens,
            ride_tokens=ride_tokens)
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

    def new_space(self, apart: bool = False) -> int:
        """A sharing space: requests that name it share KV.  With the radix cache on, all spaces
        are the engine's one cache, except those that stand `apart`: nothing of them can be found
        from another."""
        return self._loop.new_space(apart)

    def drop_space(self, space: int) -> None:
        """End a space of `new_space`; its KV is freed as soon as nothing running reads it.
        Requests that were taken in before still finish."""
        self._loop.drop_space(space)

    def pin(self, rank: tuple[int, ...] = (), *, uses: int | None = None,
            tokens: int = 0, peak: int = 0) -> Pin:
        """A pin for requests to name (`Request.pins`): what they leave in the cache is kept
        before everything that no pin covers.

        rank: when it is read again, as a `Request.priority`.  uses: it ends when as many
        requests that name it have ended; None: with `unpin`.  tokens: how much KV it will cover
        in the end (an estimate or a bound; 0: nothing is kept free).  peak: how much its work
        needs at once, KV that it does not cover included; it starts when there is room for it.
        Only the planned policy knows pins; others ignore them.
        """
        return Pin(rank, uses, tokens, peak)

    def unpin(self, pin: Pin, *, free: bool = False) -> None:
        """End a pin: its KV is the first to be evicted, or with `free`, where nobody else pins
        or reads it, free at once.  Idempotent."""
        self._loop.unpin(pin, free)

    def use_policy(self, policy: str) -> None:
        """Schedule by another policy from now on, beginning with an empty cache.

        Raises LanguageError (SGLC004) if there is none of this name, EngineError (SGLC507) while
        requests are there.  Open pins are forgotten.
        """
        make_policy(policy)
        if not self._loop.use(partial(make_policy, policy)):
            raise EngineError("SGLC507", "the policy cannot change while requests run",
                              fixes=["wait until the engine is idle"])
        self.policy = policy

    def reset_peak(self) -> None:
        """Let `kv_peak` start anew."""

        def reset(scheduler: Scheduler, _: Launcher) -> None:
            scheduler.counters.peak = scheduler.kv.in_use

        self._loop.read(reset)

    def flush_cache(self) -> int:
        """Free all KV that no running request reads (all of it when idle); how many tokens."""
        return self._loop.flush()

    def stats(self) -> Stats:
        """A consistent snapshot, from any thread."""

        def read(scheduler: Scheduler, launcher: Launcher) -> Stats:
            counters, kv = scheduler.counters, scheduler.kv
            vision = getattr(self.runner, "vision", None)
            return Stats(
                prefill_tokens=counters.prefill, cached_tokens=counters.cached,
                decode_tokens=counters.decode, forced_tokens=counters.forced,
                recomputed_tokens=counters.recomputed, forward_passes=counters.passes,
                retractions=counters.retractions, kv_free=kv.pool.free,
                kv_cached=kv.tree.cached, kv_in_use=kv.in_use,
                kv_total=kv.pool.total, kv_peak=counters.peak,
                requests=counters.requests, model_seconds=launcher.model_seconds,
                images_encoded=0 if vision is None else vision.encoded,
                failed_steps=counters.failed)

        snapshot: Stats = self._loop.read(read)
        return snapshot

    def load(self) -> tuple[int, int]:
        """(sequences running, requests waiting), now; from any thread."""
        return self._loop.load()

    def record(self, recording: Recording | None) -> None:
        """Note what happens from now on in `recording`; None notes nothing (the default)."""
        self._loop.record(recording)

    def check(self) -> None:
        """Assert the accounting of KV: every slot owned once, every lock by a sequence."""
        self._loop.read(lambda scheduler, _: check_slots(scheduler))

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
