"""What each scheduling policy does, and that none of them changes an answer."""

from __future__ import annotations

import threading
from array import array
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc
from bench import scheduling
from sglc.errors import EngineError, LanguageError
from sglc.runtime.policies import POLICIES, make_policy
from sglc.runtime.policies.lengths import Lengths
from sglc.runtime.policies.sglang import HOLD_BACK, QUEUE
from tests.runtime.common import Pending, agree, ask, engine, request

ALL = list(POLICIES)


def fixed(text, n, **options):
    return request(text, max_tokens=n, temperature=0, ignore_eos=True, **options)


def order_of(core, asked):
    """In which order requests end, when they start one after the other behind a first one."""
    order: list[int] = []
    gate = threading.Event()
    first = request("first", max_tokens=1)
    first.on_done = lambda _: gate.wait(10)
    for i, one in enumerate(asked):
        one.on_done = lambda _, i=i: order.append(i)
    core.submit([first])
    core.submit(asked)
    gate.set()
    assert core.wait_idle(20)
    return order


def test_names():
    assert ALL == ["planned", "fcfs-lru", "lpm", "dfs-weight", "vllm-apc"]
    for bad in ("best", "", None, 3):
        with pytest.raises(LanguageError):
            make_policy(bad)
    with pytest.raises(LanguageError):
        sglc.HashModel(policy="best")


@sglc.program
def debate(s, topic):
    s += "Debate about " + topic + ".\n"
    forks = s.fork(3)
    for i, f in enumerate(forks):
        f += f"Agent {i} says: " + sglc.gen("first", max_tokens=12, stop="\n")
    for i, f in enumerate(forks):
        f += " The next one said: " + forks[(i + 1) % 3]["first"]
        f += " Now I say: " + sglc.gen("second", max_tokens=12)
    s += "Verdict: " + sglc.select("verdict", choices=["yes", "no", "nobody knows"])
    s += forks[0]["second"] + sglc.gen("end", max_tokens=5, temperature=0)


def test_programs_say_the_same_under_every_policy():
    rows = [{"topic": t} for t in ("cats", "dogs", "cats", "catapults", "dogs and cats")]
    outcomes = []
    for policy in ALL:
        for room in (200, 4000):
            with sglc.HashModel(kv_tokens=room, policy=policy, max_batch_tokens=48) as model:
                states = debate.run_batch(rows, backend=model, seed=3)
                outcomes.append([(s.text(), s.token_ids(), s["verdict"]) for s in states])
                assert model.core.wait_idle(10)
                model.core.check()
                assert model.stats().kv_in_use == 0
    assert all(o == outcomes[0] for o in outcomes)


def test_policies_can_be_exchanged_when_idle():
    with engine() as core:
        one = fixed("some prompt that is long enough to be shared", 4)
        for policy in ALL:
            core.use_policy(policy)
            assert (core.policy, core.stats().kv_cached) == (policy, 0)
            agree(one, ask(core, [one])[0])
        with pytest.raises(LanguageError):
            core.use_policy("best")
        started = threading.Event()
        busy = fixed("x", 3000, on_text=lambda _: started.set())
        pending = Pending(core, [busy])
        assert started.wait(10)
        with pytest.raises(EngineError):
            core.use_policy("lpm")
        core.cancel([busy])
        pending.wait()


def test_equal_prompts_of_one_step():
    """Known when issued (planned: tokens, vllm-apc: blocks), or when the step is over."""
    text = "p" * 40
    made = {}
    for policy in ALL:
        with engine(policy=policy) as core:
            asked = [request(text, "generate", key=k, max_tokens=1) for k in range(3)]
            assert len({r.ids for r in ask(core, asked)}) > 1
            made[policy] = core.stats().prefill_tokens
            ask(core, [request(text, max_tokens=1)])
            made[policy, "again"] = core.stats().prefill_tokens - made[policy]
            core.check()
    assert made["planned"] == 40 and made["planned", "again"] == 0
    for policy in ("fcfs-lru", "lpm", "dfs-weight"):
        assert made[policy] == 120
        assert made[policy, "again"] == 1  # the last token, for its hidden state
    assert made["vllm-apc"] == 40 + 8 + 8  # 32 of 40 are whole blocks
    assert made["vllm-apc", "again"] == 8


def test_vllm_shares_whole_blocks_only():
    with engine(policy="vllm-apc") as core:
        ask(core, [request("a" * 20 + "b" * 20, "prefill")])
        before = core.stats().prefill_tokens
        ask(core, [request("a" * 20 + "c" * 20, "prefill")])
        assert core.stats().prefill_tokens - before == 24
        assert core.stats().kv_cached == 16 + 16 + 16  # half-filled blocks are not kept
        ask(core, [request("a" * 20 + "b" * 12, "prefill")])  # up to the token before the last
        assert core.stats().prefill_tokens - before == 24 + 16
        core.check()


def test_orders():
    shared = ["x" * 50 + t for t in "abc"]
    with engine(policy="fcfs-lru", max_running=1) as core:
        assert order_of(core, [request(f"{i}", "prefill", priority=(9 - i,))
                               for i in range(4)]) == [0, 1, 2, 3]
    with engine(policy="lpm", max_running=1) as core:
        ask(core, [request("known prefix, quite long by now", "prefill")])
        texts = ["unknown", "known pre", "known prefix, quite", "kn"]
        assert order_of(core, [request(t, "prefill") for t in texts]) == [2, 1, 3, 0]
    with engine(policy="lpm", max_running=1) as core:
        # 0, then what is new, then what waited for 0: it is known by then, and goes first.
        asked = [request(t, "prefill") for t in (*shared[:2], "y" * 50, shared[2])]
        assert order_of(core, asked) == [0, 1, 3, 2]
    with engine(policy="dfs-weight", max_running=1) as core:
        ask(core, [request("left, and more of it", "prefill"), request("right", "prefill")])
        texts = ["left, a", "right 1", "right 2", "left, and more!", "right 3"]
        # Three go right; then two each way, the older branch from its depth; then two right.
        assert order_of(core, [request(t, "prefill") for t in texts]) == [1, 3, 2, 0, 4]


def test_lpm_puts_duplicates_last_and_gives_up_above_128():
    policy = make_policy("lpm")
    with engine(policy="lpm") as core:
        tree = core._loop.scheduler.kv.tree
        root = tree.new_root()

        def places(texts):
            queue = [SimpleNamespace(root=root, ids=array("q", list(t.encode())), want=len(t))
                     for t in texts]
            return policy.reorder(SimpleNamespace(queue=lambda: queue, tree=tree))

        same = "s" * HOLD_BACK
        assert places(["a", same + "1", same + "2", "s" * (HOLD_BACK - 1)]) == [
            (0, 0, 0), (0, 0, 1), (1, 2), (0, 0, 3)]
        assert places(["t"] * QUEUE) is not None
        assert places(["t"] * (QUEUE + 1)) is None


@pytest.mark.parametrize("policy", ["fcfs-lru", "vllm-apc"])
def test_victims(policy):
    running = [SimpleNamespace(decoding=True, count=c, prompt_len=n, rank=i)
               for i, (c, n) in enumerate([(5, 10), (2, 10), (2, 30), (9, 10)])]
    victim = make_policy(policy).victim(running)
    assert victim is running[2 if policy == "fcfs-lru" else 3]


def test_lengths():
    lengths = Lengths()
    assert lengths.left(4096, 0, 0.5) == 256 and lengths.left(100, 90, 0.5) == 10
    for n in range(50, 150):
        lengths.add(4096, n)
    assert lengths.left(4096, 0, 0.5) == 100
    assert lengths.left(4096, 100, 0.5) == pytest.approx(25, abs=2)
    assert lengths.left(4096, 400, 0.5) == 400  # longer than all: as many again
    for _ in range(300):
        lengths.add(4096, 7)
    assert lengths.left(4096, 0, 0.99) == 7  # the old ones are forgotten


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=2, max_size=8),
       st.integers(0, 40), st.booleans())
@settings(max_examples=30, deadline=None)
def test_planned_never_retracts_where_bounds_are_tight(sizes, extra, radix):
    room = max(n + new for n, new in sizes) + extra
    with engine(kv_tokens=room, radix_cache=radix, max_batch_tokens=16) as core:
        asked = [fixed(chr(97 + i) * n, new) for i, (n, new) in enumerate(sizes)]
        for one, got in zip(asked, ask(core, asked), strict=True):
            agree(one, got)
        stats = core.stats()
        assert stats.retractions == 0 and stats.kv_in_use == 0
        assert stats.kv_peak <= room


def test_a_bound_is_kept_free():
    with engine(kv_tokens=100) as core:
        asked = [request(f"{i}" * 20, max_tokens=4000, stop=("\n",), bound=70, temperature=0)
                 for i in range(3)]
        for one in asked:
            one.sampling = fixed("", 70).sampling  # as long as the bound allows
        ask(core, asked)
        assert core.stats().retractions == 0
        assert core.stats().kv_peak <= 90  # one after the other


def test_open_ended_lengths_advance_and_are_retracted_seldom():
    with engine(kv_tokens=400, max_batch_tokens=64) as core:
        asked = [request(f"question {i}", key=i, max_tokens=2000, min_tokens=i % 7 * 10)
                 for i in range(60)]
        for one, got in zip(asked, ask(core, asked), strict=True):
            agree(one, got)
        stats = core.stats()
        assert stats.retractions <= 20 and stats.kv_in_use == 0


class TestPins:
    def fill(self, core, tag, n=40, **options):
        return ask(core, [request(tag * n, "prefill", **options)])[0]

    def known(self, core, tag, n=40):
        return self.fill(core, tag, n).cached_tokens

    def test_what_is_held_goes_last_and_in_the_order_of_the_plan(self):
        with engine(kv_tokens=130) as core:
            early, late = core.pin((1,)), core.pin((5,))
            self.fill(core, "a", pins=((early, None),))
            self.fill(core, "b", pins=((late, None),))
            self.fill(core, "c")
            self.fill(core, "d", 60)  # takes c, and 10 of b
            core.check()
            assert self.known(core, "a") == 40
            assert self.known(core, "b", 30) == 30
            core.unpin(early)
            core.unpin(early)
            self.fill(core, "e", 100)
            assert self.known(core, "b", 30) == 30
            core.check()

    def test_uses(self):
        with engine(kv_tokens=130) as core:
            pin = core.pin(uses=2)
            self.fill(core, "a", pins=((pin, 30),))
            assert not pin.closed and core._loop.scheduler.kv.tree.held == 30
            self.fill(core, "a", 50, pins=((pin, 30),))
            assert pin.closed and core._loop.scheduler.kv.tree.held == 0
            core.check()
            bad = request("", "dance", pins=((core.pin(uses=1), None),))
            assert ask(core, [bad])[0].error is not None and bad.pins[0][0].closed

    def test_free(self):
        with engine() as core:
            one, two = core.pin(), core.pin()
            ask(core, [request("shared and mine", "prefill", pins=((one, None),)),
                       request("shared and yours", "prefill", pins=((two, None),))])
            cached = core.stats().kv_cached
            core.unpin(one, free=True)
            assert core.stats().kv_cached == cached - len("mine")
            core.unpin(two, free=True)
            assert core.stats().kv_cached == 0
            core.check()

    def test_later_work_waits_for_memory_that_is_promised(self):
        # Two rows of two stages; each needs half of the pool in the end.
        with engine(kv_tokens=120, max_batch_tokens=64) as core:
            again = []

            def row(i, pin):
                first = fixed(f"{i}" * 20, 20, priority=(i,), pins=((pin, None),))

                def more(result):
                    second = fixed([*first.ids, *result.ids], 20, priority=(i,),
                                   pins=((pin, None),))
                    second.on_done = lambda _: core.unpin(pin)
                    again.append(second)
                    core.submit([second])

                first.on_done = more
                return first

            core.submit([row(i, core.pin((i,), tokens=59)) for i in range(6)])
            assert core.wait_idle(20)
            stats = core.stats()
            assert len(again) == 6
            assert stats.prefill_tokens == 6 * 20 + 6  # nothing twice; last tokens have no KV
            assert stats.retractions == 0
            core.check()

    def test_other_policies_ignore_them(self):
        with engine(policy="lpm") as core:
            self.fill(core, "a", pins=((core.pin(), None),))
            assert core._loop.scheduler.kv.tree.held == 0

    def test_a_dropped_space_takes_its_pins_along(self):
        with engine(radix_cache=False) as core:
            space, pin = core.new_space(), core.pin()
            self.fill(core, "a", space=space, pins=((pin, None),))
            assert core._loop.scheduler.kv.tree.held == 40
            core.drop_space(space)
            assert core.stats().kv_free == core.stats().kv_total
            core.check()
            core.unpin(pin)
            core.check()


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_random_cancels_leave_nothing(data):
    policy = data.draw(st.sampled_from(ALL))
    n = data.draw(st.integers(2, 8))
    with engine(kv_tokens=data.draw(st.sampled_from([60, 150, 1000])), max_batch_tokens=8,
                policy=policy, radix_cache=data.draw(st.booleans())) as core:
        pins = [core.pin((i,), uses=data.draw(st.sampled_from([None, 1, 2])),
                         tokens=data.draw(st.sampled_from([0, 30]))) for i in range(3)]
        asked = []
        doomed = data.draw(st.lists(st.integers(0, n - 1), max_size=4))
        reached = threading.Semaphore(0)
        for i in range(n):
            covers = data.draw(st.lists(st.tuples(st.sampled_from(pins), st.sampled_from(
                [None, 3, 100])), max_size=2))
            one = fixed("shared " * 2 + f"{i}" * data.draw(st.integers(1, 20)),
                        data.draw(st.sampled_from([1, 10, 2000])), priority=(i % 3,),
                        pins=tuple(covers), on_text=lambda _: reached.release())
            asked.append(one)
        pending = Pending(core, asked)
        for i in doomed:
            reached.acquire(timeout=0.01)
            core.cancel([asked[i]])
            core.unpin(pins[i % 3], free=i % 2 > 0)
            core.check()
        core.cancel(asked)
        for got in pending.wait():
            assert got.error is None or got.error.code in ("SGLC506", "SGLC502")
        assert core.wait_idle(10)
        core.check()
        for pin in pins:
            core.unpin(pin)
        core.check()
        stats = core.stats()
        assert stats.kv_in_use == 0 and core._loop.scheduler.kv.tree.held == 0
        assert stats.kv_peak <= stats.kv_total
        core.flush_cache()
        assert core.stats().kv_free == core.stats().kv_total


@pytest.mark.parametrize("policy", ALL)
def test_more_than_memory_and_what_cannot_fit(policy):
    with engine(kv_tokens=64, policy=policy) as core:
        asked = [fixed(f"row {i} " * 3, 20) for i in range(12)]
        asked.insert(5, fixed("far too long " * 6, 5))
        results = ask(core, asked)
        assert [r.error.code for r in results if r.error] == ["SGLC502"]
        assert results[5].error is not None
        for one, got in zip(asked, results, strict=True):
            if got.error is None:
                agree(one, got)
        assert core.wait_idle(10)
        core.check()
        assert core.stats().kv_in_use == 0


def tool(value, fails):
    if fails:
        raise RuntimeError("the tool is broken")
    return f"{len(value)} found"


@sglc.program
def with_tool(s, text, fails):
    s += "Look at " + text + sglc.gen("a", max_tokens=8, temperature=0)
    s += tool(s["a"], fails)
    s += sglc.gen("b", max_tokens=8, temperature=0)


@pytest.mark.parametrize("policy", ["planned", "vllm-apc"])
def test_a_host_call_that_raises_costs_its_row_only(policy):
    with sglc.HashModel(kv_tokens=300, policy=policy) as model:
        rows = [{"text": f"number {i}", "fails": i == 2} for i in range(5)]
        states = with_tool.run_batch(rows, backend=model, seed=0)
        assert [s.error() is not None for s in states] == [i == 2 for i in range(5)]
        assert model.core.wait_idle(10)
        model.core.check()
        assert model.stats().kv_in_use == 0


@pytest.mark.parametrize("name", ["debate", "tree of thought"])
def test_the_plan_computes_every_prefix_once_at_a_quarter_of_the_working_set(name):
    # Small rows of the simulation in bench/scheduling.py: few enough for a test, and a pool
    # that holds a quarter of what they come to, or a row where that is more.
    scale = {"debate": 0.12, "tree of thought": 0.2}[name]
    first = scheduling.simulate(name, "planned", 1 << 18, scale=scale)
    work = scheduling.least(first.finals)[1]
    room = max(work // 4, first.load.peak + 1000)
    ratios = {}
    for policy in ("planned", "lpm", "vllm-apc"):
        run = scheduling.simulate(name, policy, room, scale=scale)
        ratios[policy] = run.stats.prefill_tokens / scheduling.least(run.finals)[0]
        assert sorted(run.finals) == sorted(first.finals)
    assert ratios["planned"] <= 1.02
    assert ratios["planned"] < min(ratios["lpm"], ratios["vllm-apc"])
