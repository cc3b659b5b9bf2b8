"""The engine as a service: memory pressure, errors, cancelling, spaces, threads, closing."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from array import array

import pytest

from sglc.errors import Cancelled
from sglc.runtime.engine import EngineCore
from sglc.runtime.hash_model import HashRunner
from sglc.runtime.policies import POLICIES
from tests.runtime.common import TOKENIZER, Pending, agree, ask, engine, request


def long(text: str, n: int, **options):
    return request(text, max_tokens=n, temperature=0, ignore_eos=True, **options)


@pytest.mark.parametrize("policy", ["vllm-apc", "fcfs-lru"])
def test_retraction_keeps_tokens_and_progress(policy):
    with engine(kv_tokens=60, policy=policy) as core:
        core._loop.scheduler.policy.fits = lambda *_: True  # whoever asks may start
        asked = [long(f"request number {i}", 30) for i in range(5)]
        for one, got in zip(asked, ask(core, asked), strict=True):
            agree(one, got)
            assert got.output_tokens == 30
        stats = core.stats()
        assert stats.retractions > 0
        assert stats.kv_in_use == 0 and stats.kv_total == 60
        core.check()


def test_two_that_fill_the_pool_do_not_retract_each_other_for_ever():
    with engine(kv_tokens=50) as core:
        asked = [long("a" * 20, 30, priority=(1,)), long("b" * 20, 30, priority=(0,))]
        done = []
        pending = Pending(core, asked)
        for i, one in enumerate(asked):
            take = one.on_done
            one.on_done = lambda result, i=i, take=take: (done.append(i), take(result))
        pending.wait()
        assert done == [1, 0]
        assert core.stats().retractions <= 2


@pytest.mark.parametrize("policy", list(POLICIES))
def test_sampled_retraction_continues_the_same_stream(policy):
    asked = [request(f"prompt {i}", key=i, max_tokens=40, ignore_eos=True, repetition_penalty=1.2,
                     stop=("zz",)) for i in range(6)]
    with engine(kv_tokens=70, policy=policy) as core:
        core._loop.scheduler.policy.fits = lambda *_: True
        for one, got in zip(asked, ask(core, asked), strict=True):
            agree(one, got)
        assert core.stats().retractions > 0


def test_the_largest_that_fits_runs_and_larger_is_refused():
    with engine(kv_tokens=32, context_length=64) as core:
        fits, not_, edge, score, too_long = ask(core, [
            long("x" * 20, 500), long("y" * 32, 5), request("z" * 32, "prefill"),
            request("w" * 33, "score", score_from=30), long("v" * 64, 1)])
        agree(long("x" * 20, 13), fits)  # 20 + 13 - 1 slots
        assert fits.finish_reason == "length"
        assert not_.error.code == "SGLC502" and edge.error is None and score.error is None
        assert too_long.error.code == "SGLC501"
        core.check()
    with engine(context_length=16) as core:
        cut, full, score = ask(core, [long("x" * 12, 500), request("x" * 16, "prefill"),
                                      request("x" * 17, "score")])
        agree(long("x" * 12, 500), cut, context_length=16)
        assert len(cut.ids) == 4 and full.error is None and score.error.code == "SGLC501"


def test_malformed_requests():
    with engine() as core:
        codes = [r.error.code for r in ask(core, [
            request([], max_tokens=1), request([9999]), request([-1]),
            request("x", stop_regex=("(",)), request("x", "dance")])]
        assert codes == ["SGLC507"] * 5
        empty, nothing = ask(core, [request([], "prefill"), request([], "score")])
        assert empty.error is None and nothing.logprobs == ()
        assert ask(core, [request("x", "score")])[0].logprobs == (None,)
        zero = ask(core, [request("some prompt", max_tokens=0)])[0]
        assert (zero.ids, zero.finish_reason, zero.output_tokens) == ((), "length", 0)


def test_priority_then_arrival():
    order = []
    with engine(max_running=1) as core:
        gate = threading.Event()
        first = request("first", max_tokens=1)
        asked = [request(f"{i}", "prefill", priority=(p,)) for i, p in enumerate([2, 1, 1, 0])]
        for i, one in enumerate(asked):
            one.on_done = lambda _, i=i: order.append(i)
        first.on_done = lambda _: gate.wait(10)
        core.submit([first])
        core.submit(asked)
        gate.set()
        assert core.wait_idle(10)
    assert order == [3, 1, 2, 0]


def test_cancel_waiting_and_running():
    with engine(max_running=2) as core:
        running, waiting = long("run", 3000), [long(f"w{i}", 3000) for i in range(3)]
        started = threading.Event()
        running.on_text = lambda _: started.set()
        pending = Pending(core, [running, *waiting])
        assert started.wait(10)
        core.cancel([waiting[0], waiting[2]])
        running.cancelled = True  # a flag alone is enough for a running request
        waiting[1].cancelled = True
        for got in pending.wait():
            assert isinstance(got.error, Cancelled) and got.error.code == "SGLC506"
            assert got.finish_reason == "abort"
        assert core.wait_idle(10)
        core.check()
        assert core.stats().kv_in_use == 0
        before = long("never", 5)
        before.cancelled = True
        assert ask(core, [before])[0].error.code == "SGLC506"


@pytest.mark.parametrize("broken", ["forward", "logits"])
def test_a_failing_step_fails_its_requests_only(broken):
    with engine(max_batch_tokens=16) as core:
        keep = request("kept in the cache", max_tokens=3, temperature=0)
        ask(core, [keep])
        free = core.stats().kv_free
        original = getattr(core.runner, broken)

        def fail(_):
            raise RuntimeError("out of luck")

        setattr(core.runner, broken, fail)
        results = ask(core, [request(f"{i} fails", max_tokens=4) for i in range(3)])
        assert [r.error.code for r in results] == ["SGLC503"] * 3
        assert "out of luck" in str(results[0].error)
        setattr(core.runner, broken, original)
        core.check()
        assert core.stats().kv_free == free  # what the failed step wrote is not in the cache
        for one in (keep, request("0 fails", max_tokens=4)):
            agree(one, ask(core, [one])[0])


def test_requests_outside_a_failing_step_go_on():
    with engine(max_batch_tokens=4) as core:
        original, calls = core.runner.forward, []

        def fail_once(batch):
            calls.append(0)
            if len(calls) == 2:
                raise RuntimeError("once")
            return original(batch)

        core.runner.forward = fail_once
        asked = [request("p" * 12, max_tokens=2), request("q" * 6, max_tokens=2)]
        failed, fine = ask(core, asked)
        assert failed.error.code == "SGLC503"
        agree(asked[1], fine)
        core.check()


def test_a_defect_of_the_engine_hangs_nobody():
    with engine() as core:
        scheduler = core._loop.scheduler
        scheduler.complete = None
        assert ask(core, [request("x", max_tokens=2)])[0].error.code == "SGLC503"
        one = request("x", max_tokens=2)
        agree(one, ask(core, [one])[0])
        core.check()


@pytest.mark.parametrize(("owner", "method"), [
    ("loop", "_members"), ("queues", "add"), ("builder", "_others"), ("tree", "insert"),
    ("scheduler", "ended")])
@pytest.mark.parametrize("at", [0, 2])
def test_nor_do_those_that_it_had_in_hand(owner, method, at):
    """Requests that were just taken in, that are about to be answered, or that stand for several
    sequences."""
    with engine() as core:
        loop, scheduler = core._loop, core._loop.scheduler
        place = {"loop": loop, "scheduler": scheduler, "queues": scheduler.queues,
                 "builder": scheduler.builder, "tree": scheduler.kv.tree}[owner]
        real, calls = getattr(place, method), 0

        def failing(*args, **more):
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise ZeroDivisionError
            return real(*args, **more)

        setattr(place, method, failing)
        asked = [request(f"hello {i}", max_tokens=8) for i in range(4)]
        for i in range(2):
            several = request(f"choose {i}", "score")
            several.choices = (array("q", [97, 98]), array("q", [120, 121, 122]))
            asked.append(several)
        errors = [r.error for r in ask(core, asked)]
        assert any(errors) and all(e is None or e.diagnostic.code == "SGLC503" for e in errors)
        one = request("again", max_tokens=3)
        agree(one, ask(core, [one])[0])
        core.check()


def test_an_engine_that_cannot_start_anew_says_so():
    with engine() as core:
        core._loop.scheduler.complete = core._loop._renew = None
        for _ in range(2):
            answers = ask(core, [request("x", max_tokens=2), request("y", max_tokens=2)])
            assert [r.error.diagnostic.code for r in answers] == ["SGLC503"] * 2
        assert core.wait_idle(5)


@pytest.mark.parametrize("radix", [True, False])
def test_spaces(radix):
    with engine(radix_cache=radix) as core:
        space, other = core.new_space(), core.new_space()
        asked = [request("shared prompt", "prefill", space=s)
                 for s in (space, space, other, None)]
        ask(core, asked)
        n = len("shared prompt")
        stats = core.stats()
        assert stats.prefill_tokens == (n if radix else 3 * n)
        assert stats.kv_cached == (n if radix else 2 * n)
        core.drop_space(space)
        core.drop_space(space)
        assert core.stats().kv_cached == n
        core.check()
        if not radix:
            assert ask(core, asked[:1])[0].error.code == "SGLC507"
            core.drop_space(other)
            assert core.stats().kv_cached == 0
            # Dropped while in use: it still finishes, and leaves nothing.
            space = core.new_space()
            asked = [long(f"late {i}", 50, space=space) for i in range(3)]
            pending = Pending(core, asked)
            core.drop_space(space)
            for one, got in zip(asked, pending.wait(), strict=True):
                agree(one, got)
            assert core.wait_idle(10)
            assert core.stats().kv_free == core.stats().kv_total
            core.check()
        core.flush_cache()
        assert core.stats().kv_free == core.stats().kv_total


def test_callbacks_may_submit_and_may_fail():
    with engine() as core:
        lengths, over = [], threading.Event()

        def again(result):
            lengths.append(len(result.ids))
            if len(lengths) == 5:
                over.set()
            else:
                more = long("chain", len(lengths) + 1)
                more.on_done = again
                core.submit([more])
            raise ValueError("the engine must not care")

        first = long("chain", 1)
        first.on_done = again
        core.submit([first])
        assert over.wait(10)
        assert lengths == [1, 2, 3, 4, 5]
        assert core.wait_idle(10)


def test_many_threads():
    with engine(kv_tokens=300, max_batch_tokens=32) as core:
        failures = []

        def work(n):
            for i in range(4):
                one = request(f"thread {n % 3}", key=i, max_tokens=6)
                try:
                    agree(one, ask(core, [one])[0])
                    core.check()
                    stats = core.stats()
                    assert stats.kv_free + stats.kv_cached + stats.kv_in_use == stats.kv_total
                    core.flush_cache()
                except BaseException as error:
                    failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not failures and core.wait_idle(10)


def test_close_ends_everything_once():
    core = engine(max_running=1)
    late = []

    def resubmit(_):
        more = request("late", max_tokens=1)
        more.on_done = late.append
        core.submit([more])

    pending = Pending(core, [long(f"{i}", 3900) for i in range(4)])
    one = long("one", 3900)
    one.on_done = resubmit
    core.submit([one])
    core.close()
    core.close()
    assert [r.error.code for r in pending.results] == ["SGLC503"] * 4
    assert [r.error.code for r in late] == ["SGLC503"]
    assert ask(core, [request("after")])[0].error.code == "SGLC503"
    assert core.wait_idle(0)


def test_closing_an_engine_that_never_ran():
    core = engine()
    core.close()
    assert ask(core, [request("x")])[0].error.code == "SGLC503"


def test_a_forgotten_engine_stops_its_thread():
    core = engine()
    ask(core, [request("x", max_tokens=1)])
    thread, alive = core._loop._thread, weakref.ref(core)
    del core
    gc.collect()
    thread.join(10)
    assert alive() is None and not thread.is_alive()


def test_the_thread_does_not_keep_the_process():
    code = ("from tests.runtime.common import *\n"
            "core = engine()\n"
            "core.submit([request('x', max_tokens=3000, ignore_eos=True)])\n")
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - started < 50


def test_an_idle_engine_sleeps():
    core = EngineCore(HashRunner(TOKENIZER.vocab_size, TOKENIZER), TOKENIZER, kv_tokens=64)
    with core:
        ask(core, [request("x", max_tokens=1)])
        assert core.wait_idle(10)
        passes, started = core.stats().forward_passes, time.process_time()
        time.sleep(0.2)
        assert time.process_time() - started < 0.1
        assert core.stats().forward_passes == passes
