"""Gens in a row as one request: what it changes, and what it does not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import sglc as sgl

FIELDS = ("name", "age", "city", "job", "pet", "hobby")


def extract(s: Any, doc: Any) -> None:
    s += "Document: " + doc + "\n"
    for field in FIELDS:
        s += field.title() + ": " + sgl.gen(field, max_tokens=6, stop="\n") + "\n"


ROWS = [(f"number {i}, " * (1 + i % 5),) for i in range(12)]


def test_six_fields_are_one_request() -> None:
    found = {}
    for without in ((), ("merge-gens",)):
        with sgl.HashModel() as model:
            states = sgl.program(extract, without=without).run_batch(ROWS, backend=model, seed=1)
            stats = model.stats()
            found[without] = [s.token_ids() for s in states], stats.requests, stats
        assert stats.prefill_tokens > 0
    (fused, one, a), (apart, six, b) = found.values()
    assert fused == apart
    assert (one, six) == (len(ROWS), len(FIELDS) * len(ROWS))
    assert (a.prefill_tokens, a.forward_passes) <= (b.prefill_tokens, b.forward_passes)


@settings(max_examples=15, deadline=None)
@given(kv=st.integers(230, 700), chunk=st.sampled_from([7, 64]),
       temperature=st.sampled_from([0, 1]),
       policy=st.sampled_from(["planned", "lpm", "fcfs-lru", "vllm-apc"]))
def test_under_any_memory_and_policy(kv: int, chunk: int, temperature: float,
                                     policy: str) -> None:
    with sgl.HashModel(kv_tokens=kv, max_batch_tokens=chunk, policy=policy) as model:
        program = sgl.program(extract)
        compiled = program.run_batch(ROWS, backend=model, seed=3, temperature=temperature)
        eager = program.run_batch(ROWS, backend=model, seed=3, temperature=temperature,
                                  mode="eager")
        assert [s.token_ids() for s in compiled] == [s.token_ids() for s in eager]
        assert model.stats().kv_in_use == 0


def test_a_fused_gen_starts_ahead_of_what_waits() -> None:
    """With room for one sequence, the rows finish one after the other."""
    ends: list[Any] = []
    with sgl.HashModel(max_batch_tokens=1) as model:
        program = sgl.program(extract)
        with model.record() as run:
            program.run_batch(ROWS[:4], backend=model, seed=1)
        ends = [bytes(seq.ids).split(b"\n")[0] for seq in run.sequences]
    groups = [ends[i:i + len(FIELDS)] for i in range(0, len(ends), len(FIELDS))]
    assert len(groups) == 4 and all(len(set(g)) == 1 for g in groups)
