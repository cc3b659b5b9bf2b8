"""Whatever runs beside a request, its answer is the reference's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.runtime.policies import POLICIES
from sglc.runtime.request import Request
from tests.runtime.common import TOKENIZER, agree, ask, engine, request

PREFIXES = ["", "The quick brown fox jumps over", "The quick", "The quick brown cat", "a" * 40]

prompts = st.builds(lambda a, b: a + b, st.sampled_from(PREFIXES),
                    st.text("ab", min_size=1, max_size=6))
generates = st.builds(
    request, prompts, st.just("generate"), key=st.integers(0, 2**64 - 1),
    max_tokens=st.integers(0, 12), temperature=st.sampled_from([0.0, 0.0, 1.0, 0.7]),
    top_k=st.sampled_from([-1, 20]), top_p=st.sampled_from([1.0, 0.8]),
    min_tokens=st.sampled_from([0, 4]), ignore_eos=st.booleans(),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    stop=st.sampled_from([(), ("e",), ("\n", "x"), (" ", "th")]),
    stop_regex=st.sampled_from([(), (), (r"[A-F]",)]),
    stop_token_ids=st.sampled_from([(), (65, 66, 257)]), no_stop_trim=st.booleans())
scores = st.builds(lambda ids, back: request(ids, "score", score_from=max(0, len(ids) - back)),
                   prompts, st.integers(0, 12))
prefills = st.builds(request, prompts, st.just("prefill"))
batches = st.lists(st.one_of(generates, generates, scores, prefills), min_size=1, max_size=9)


@given(batches, st.sampled_from([64, 90, 4000]), st.booleans(), st.sampled_from([3, 16, 512]),
       st.sampled_from([2, 256]), st.integers(1, 3), st.sampled_from(list(POLICIES)))
@settings(max_examples=60, deadline=None)
def test_answers_do_not_depend_on_the_engine(batch, kv, radix, chunk, running, parts, policy):
    with engine(kv_tokens=kv, radix_cache=radix, max_batch_tokens=chunk,
                max_running=running, policy=policy) as core:
        for part in range(parts):  # some together, some on a warm cache
            asked = batch[part::parts]
            for one, got in zip(asked, ask(core, asked), strict=True):
                agree(one, got)
            core.check()
        stats = core.stats()
        assert stats.kv_in_use == 0
        assert stats.kv_free + stats.kv_cached == kv
        assert radix or stats.kv_cached == 0
        if kv == 4000:
            assert stats.retractions == 0
            read = sum(max(0, len(r.ids) - (r.kind == "score")) for r in batch
                       if r.kind != "score" or r.score_from < len(r.ids) - 1
                       or (r.score_from == len(r.ids) - 1 and len(r.ids) > 1))
            assert stats.prefill_tokens + stats.cached_tokens == read
        core.flush_cache()
        assert core.stats().kv_free == kv


@given(batches, st.sampled_from([4, 512]))
@settings(max_examples=25, deadline=None)
def test_every_distinct_prefix_is_computed_once(batch, chunk):
    with engine(max_batch_tokens=chunk) as core:
        results = ask(core, batch)
        first = core.stats()
        needed = prefixes(batch)
        decoded = {(*one.ids, *got.ids[:n]) for one, got in zip(batch, results, strict=True)
                   for n in range(1, got.output_tokens)}
        # A prompt that another request happens to generate may or may not be read.
        assert len(needed - decoded) <= first.prefill_tokens <= len(needed)
        ask(core, batch)  # all of it is known now; scores may run it again for hidden states
        again = core.stats()
        assert again.prefill_tokens == first.prefill_tokens
        core.check()


def prefixes(batch: list[Request]) -> set[tuple[int, ...]]:
    known = set()
    for one in batch:
        ids = tuple(one.ids)
        if one.kind == "score":
            ids = ids[:-1] if max(one.score_from, 1) < len(ids) else ()
        known |= {ids[:n + 1] for n in range(len(ids))}
    return known


def test_equal_prompts_share_one_row_and_then_none():
    with engine() as core:
        asked = [request("the same prompt", key=k, max_tokens=1) for k in range(5)]
        results = ask(core, asked)
        assert len({r.ids for r in results}) > 1
        stats = core.stats()
        assert (stats.prefill_tokens, stats.cached_tokens) == (15, 60)
        assert (stats.forward_passes, stats.recomputed_tokens) == (1, 0)
        ask(core, asked)
        again = core.stats()
        assert (again.forward_passes, again.recomputed_tokens) == (1, 0)
        assert again.cached_tokens == 135
        ask(core, [request("the same", max_tokens=1)])  # KV known, its hidden state not
        last = core.stats()
        assert (last.prefill_tokens, last.recomputed_tokens) == (15, 1)


def test_a_generation_can_be_continued_without_prefill():
    with engine() as core:
        first = request("tell me", max_tokens=9, temperature=0, ignore_eos=True)
        got = ask(core, [first])[0]
        before = core.stats()
        assert before.decode_tokens == 8  # the last token has no KV
        more = request([*first.ids, *got.ids], max_tokens=3, temperature=0)
        agree(more, ask(core, [more])[0])
        assert core.stats().prefill_tokens == before.prefill_tokens + 1
        # What ended by EOS or before its last token is known up to the hidden state.
        same = request([*first.ids, *got.ids[:-1]], max_tokens=1, temperature=0, ignore_eos=True)
        passes = core.stats().forward_passes
        assert ask(core, [same])[0].ids == got.ids[-1:]
        assert core.stats().forward_passes == passes


def test_choices_are_scored_as_a_trie():
    prompt = "Is it a tool? "
    choices = ["calculator", "calendar", "cat", "search engine"]
    for first in ("prefill", "generate", None):
        with engine() as core:
            if first:
                ask(core, [request(prompt, first, max_tokens=1)])
            asked = [request(prompt + c, "score", score_from=len(prompt)) for c in choices]
            for one, got in zip(asked, ask(core, asked), strict=True):
                agree(one, got)
            stats = core.stats()
            assert stats.prefill_tokens == len(prefixes(asked))
            assert stats.recomputed_tokens == 0
            assert stats.forward_passes == 1 + bool(first)


def test_scores_one_after_another_recompute_little():
    prompt = "Is it a tool? "
    with engine() as core:
        for choice in ("calculator", "search", "search it"):
            one = request(prompt + choice, "score", score_from=len(prompt))
            agree(one, ask(core, [one])[0])
        stats = core.stats()
        # Only the middle of "search" is run again, not the prompt's last token nor its end.
        assert stats.recomputed_tokens == len("searc") - 1
        assert stats.prefill_tokens == len(prompt + "calculato") + len("search it") - 1


def test_prompt_logprobs_of_a_generation():
    with engine() as core:
        one = request("score me and go on", max_tokens=4, temperature=0,
                      want_prompt_logprobs_from=5)
        got = ask(core, [one])[0]
        agree(one, got)
        alone = ask(core, [request("score me and go on", "score", score_from=5)])[0]
        assert got.prompt_logprobs == pytest.approx(alone.logprobs)


def test_logprobs_belong_to_the_kept_tokens():
    with engine() as core:
        one = request("words", max_tokens=40, temperature=0, stop=("e",), top_logprobs=3)
        got = ask(core, [one])[0]
        agree(one, got)
        assert len(got.logprobs) == len(got.top_logprobs) == len(got.ids)
        for value, top in zip(got.logprobs, got.top_logprobs, strict=True):
            assert len(top) == 3 and top == tuple(sorted(top, reverse=True))
            assert value <= top[0][0]
        scored = ask(core, [request([*one.ids, *got.ids], "score", score_from=5)])[0]
        assert scored.logprobs == pytest.approx(got.logprobs, abs=1e-5)


@given(st.lists(prompts, min_size=1, max_size=4), st.sampled_from([(), ("e", "th\n")]))
@settings(max_examples=15, deadline=None)
def test_streams_add_up_to_the_text(texts, stop):
    pieces: list[list[str]] = [[] for _ in texts]
    with engine() as core:
        asked = [request(text, key=i, max_tokens=20, stop=stop, on_text=pieces[i].append)
                 for i, text in enumerate(texts)]
        for one, got, parts in zip(asked, ask(core, asked), pieces, strict=True):
            agree(one, got)
            assert "".join(parts) == got.text
            assert all(parts)


class Spelling:
    """A constraint: one of some byte strings.  States are the bytes so far."""

    def __init__(self, *texts: str, can_end: bool = True) -> None:
        self.texts = [t.encode() for t in texts]
        self.can_end = can_end

    def start(self) -> bytes:
        return b""

    def mask(self, state: bytes) -> np.ndarray:
        bits = np.zeros((TOKENIZER.vocab_size + 31) // 32 * 32, dtype=bool)
        for i, piece in enumerate(TOKENIZER.byte_table):
            bits[i] = bool(piece) and any(t.startswith(state + piece) for t in self.texts)
        bits[256] = self.accepting(state)
        return np.packbits(bits, bitorder="little").view(np.int32)

    def advance(self, state: bytes, token: int) -> bytes | None:
        if token == 256:
            return state if self.accepting(state) else None
        state += TOKENIZER.byte_table[token]
        return state if any(t.startswith(state) for t in self.texts) else None

    def jump(self, state: bytes) -> bytes:
        rest = [t[len(state):] for t in self.texts if t.startswith(state)]
        n = 0
        while rest[0][n:] and len({t[n:n + 1] for t in rest}) == 1:
            n += 1
        return rest[0][:n]

    def accepting(self, state: bytes) -> bool:
        return self.can_end and state in self.texts


def test_constraints_bind_and_end():
    with engine() as core:
        texts = ("yes", "no", "maybe so")
        results = ask(core, [request(f"q{k}", key=k, constraint=Spelling(*texts),
                                     ignore_eos=k % 2 > 0, min_tokens=k % 3 * 4)
                             for k in range(12)])
        assert {r.text for r in results} <= set(texts) and len({r.text for r in results}) > 1
        assert {r.finish_reason for r in results} == {"constraint"}
        assert all(r.output_tokens == len(r.ids) for r in results)

        longer = ask(core, [request(f"q{k}", key=k, constraint=Spelling("n", "no"))
                            for k in range(20)])
        assert {(r.text, r.finish_reason) for r in longer} == {("n", "eos"), ("no", "constraint")}

        passes = core.stats().forward_passes
        empty, dead = ask(core, [request("q", constraint=Spelling("")),
                                 request("q", constraint=Spelling("x", can_end=False))])
        assert (empty.text, empty.finish_reason) == ("", "constraint")
        assert dead.error.code == "SGLC505"
        assert core.stats().forward_passes <= passes + 1
        impossible = ask(core, [request("q", constraint=Spelling())])[0]
        assert impossible.error.code == "SGLC505"
        cut = ask(core, [request("q", constraint=Spelling("maybe so"), max_tokens=3)])[0]
        assert (cut.text, cut.finish_reason) == ("may", "length")
        core.check()
