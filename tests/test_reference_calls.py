"""What the reference says a gen and a select choose: by hand, and against the engine's parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.config import RunOptions
from tests.reference_calls import Run, choose, encode, find_stop, gumbel, philox, pick, text_of
from tests.toys import BOS, CONTROL, EOS, FIRST, WIDE, Template, Toy, wide


# -- noise -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("counter", "key", "words"), [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822,
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
])
def test_philox_known_answers(counter: tuple[int, ...], key: int, words: tuple[int, ...]) -> None:
    """The known answers published with Random123."""
    assert tuple(int(w) for w in philox(counter, key)) == words


def test_gumbel_layout() -> None:
    word = int(philox((3, 2, 0, 0), 77)[1])  # id 9 = block 2, word 1
    assert gumbel(77, 3, 10)[9] == -np.log(-np.log((word + 0.5) / 2**32))
    assert np.array_equal(gumbel(77, 3, 10), gumbel(77, 3, 64)[:10])


# -- prompts ---------------------------------------------------------------------------------
def test_runs_are_encoded_whole() -> None:
    tok = Toy()
    a, b, c = ord("a"), ord("b"), ord("c")
    assert encode(tok, []) == [BOS]
    assert encode(tok, ["a", "b"]) == [BOS, FIRST, wide("ab")]
    assert encode(tok, ["a", (), "b"]) == [BOS, FIRST, a, b]  # a gen of nothing is a border
    assert encode(tok, ["a", CONTROL, "b", "c"]) == [BOS, FIRST, a, CONTROL, wide("bc")]
    assert encode(tok, [(b, c), "ab"]) == [BOS, b, c, wide("ab")]  # only the opening run is first
    assert text_of(tok, ["a", CONTROL, (wide("bc"), EOS), "é"]) == "abcé"
    assert text_of(tok, [(wide(b"x\xc3"),), (wide(b"\xa9y"),)]) == "x\ufffd\ufffdy"


# -- stops -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("out", "stop", "ids", "leftover"), [
    ("abcd", ("bc",), [], "a"),  # ab|cd: the stop starts inside a token
    ("abcd", ("d", "c"), [wide("ab")], ""),  # the earliest match wins
    ("xcdé!", ("é",), [ord("x"), wide("cd")], ""),
    ("qé", ("\xc3",), None, None),  # text matches, not bytes
    ("abc", ("cd",), None, None),
])
def test_find_stop(out: str, stop: tuple[str, ...], ids: Any, leftover: str) -> None:
    tok = Toy()
    got = find_stop(tok, tok.encode(out), RunOptions(stop=stop))
    assert (got and list(got.ids), got and got.leftover) == (ids, leftover)


def test_find_stop_keeps_characters_whole() -> None:
    out = [ord("a"), wide(b"x\xc3"), wide(b"\xa9y")]
    got = find_stop(Toy(), out, RunOptions(stop=("y",)))
    assert got == ((ord("a"),), "xé", {"type": "stop", "matched": "y"})
    assert find_stop(Toy(), out[:2], RunOptions(stop_regex=(r"[^ax]",))) is None  # half an é
    assert find_stop(Toy(), out, RunOptions(stop_regex=(r"[^ax]",))).leftover == "x"


# -- choosing --------------------------------------------------------------------------------
def chosen(logits: list[float], out: tuple[int, ...] = (), prompt: tuple[int, ...] = (),
           key: int = 1, **options: Any) -> int:
    x = np.array(logits, np.float32)
    p = RunOptions(**{"temperature": 0.0, **options})
    return choose(x, np.ones(len(x), bool), list(prompt), list(out), p, key)


def test_greedy_and_penalties() -> None:
    assert chosen([1.0, 3.0, 3.0]) == 1
    assert chosen([1.0, 3.0, 2.9], out=(1,), presence_penalty=0.2) == 2
    assert chosen([1.0, 3.0, 2.5], out=(1, 1), frequency_penalty=0.2) == 1
    assert chosen([1.0, 3.0, 2.5], out=(1, 1, 1), frequency_penalty=0.2) == 2
    assert chosen([1.0, 3.0, 2.0], prompt=(1,), presence_penalty=2.0) == 1  # output only
    assert chosen([1.0, 3.0, 1.6], prompt=(1,), repetition_penalty=2.0) == 2
    assert chosen([-1.0, -1.9], prompt=(0,), repetition_penalty=2.0) == 1


def test_filters() -> None:
    p = np.log([0.5, 0.25, 0.15, 0.1])
    def support(**options: Any) -> set[int]:
        return {chosen(list(p), key=k, temperature=1.0, **options) for k in range(200)}

    assert support() == {0, 1, 2, 3}
    assert support(top_k=2) == {0, 1}
    assert support(top_p=0.74) == {0, 1}
    assert support(top_p=0.76) == {0, 1, 2}
    assert support(min_p=0.35) == {0, 1}
    assert support(top_k=3, top_p=0.8) == {0, 1}  # of the three that are left, renormalised
    assert support(top_k=1) == {0}


def test_sampling_follows_the_distribution() -> None:
    p = np.array([0.1, 0.2, 0.7])
    n = 3000
    counts = np.bincount([chosen(list(2 * np.log(p)), key=k, temperature=2.0) for k in range(n)],
                         minlength=3)
    assert np.abs(counts / n - p).max() < 4 * 0.5 / np.sqrt(n)


# -- select ----------------------------------------------------------------------------------
def scored(method: str, table: dict[tuple[int, ...], dict[int, float]],
           choices: list[list[int]], prompt: list[int]) -> tuple[int, dict]:
    """Pick with given probabilities of next tokens after given ids (the rest is shared)."""
    def logits(ids: list[int]) -> np.ndarray:
        given = table[tuple(ids)]
        rest = (1 - sum(given.values())) / (Toy.vocab_size - len(given))
        x = np.full(Toy.vocab_size, rest)
        x[list(given)] = list(given.values())
        return np.log(x)

    run_ = Run(SimpleNamespace(logits=logits), Toy(), Template(), RunOptions(), 0, 0)
    return pick(run_, prompt, choices, method)


def test_the_three_methods_rank_differently() -> None:
    # After the prompt [0]: choices [1, 2], [3, 4] and [5].
    table = {(0,): {1: 0.4, 3: 0.2, 5: 0.3}, (0, 1): {2: 0.1}, (0, 3): {4: 0.9},
             (1,): {2: 0.001}, (3,): {4: 0.9}, (5,): {}}
    choices = [[0, 1, 2], [0, 3, 4], [0, 5]]
    best, meta = scored("token_length_normalized", table, choices, [0])
    assert best == 1
    expected = [np.log(0.4 * 0.1) / 2, np.log(0.2 * 0.9) / 2, np.log(0.3)]
    assert meta["normalized_prompt_logprobs"] == pytest.approx(expected)
    best, meta = scored("greedy_token_selection", table, choices, [0])
    assert best == 0
    assert meta["greedy_logprob_matrix"][2] == pytest.approx([np.log(0.3)] * 2)
    best, meta = scored("unconditional_likelihood_normalized", table, choices, [0])
    assert best == 0
    gains = [(np.log(0.4) + np.log(0.1) - np.log(0.001)) / 2, np.log(0.2) / 2, np.log(0.3)]
    assert meta["normalized_unconditional_prompt_logprobs"] == pytest.approx(gains)
    table[(1,)] = {2: 0.1}
    assert scored("unconditional_likelihood_normalized", table, choices, [0])[0] == 0
    table[(1,)] = {2: 0.9}
    assert scored("unconditional_likelihood_normalized", table, choices, [0])[0] == 1


def test_select_scores_from_the_first_difference() -> None:
    """Choices that merge into the prompt's last token pull the start back; position 0 is 0."""
    best, meta = scored("token_length_normalized", {(7,): {9: 0.5, 1: 0.25}, (7, 1): {2: 0.5}},
                        [[7, 9], [7, 1, 2]], [7, 1])
    assert best == 0
    assert meta["normalized_prompt_logprobs"] == pytest.approx(
        [np.log(0.5), (np.log(0.25) + np.log(0.5)) / 2])
    best, meta = scored("token_length_normalized", {(8,): {3: 0.5}}, [[8, 3], [9]], [8])
    assert best == 1 and meta["normalized_prompt_logprobs"][1] == 0.0


# -- against the engine's own parts ------------------------------------------------------------
params = st.fixed_dictionaries({}, optional={
    "temperature": st.sampled_from((0.0, 0.3, 1.0, 3.0)), "top_k": st.integers(1, 12),
    "top_p": st.floats(0.05, 1.0), "min_p": st.floats(0.0, 1.0),
    "frequency_penalty": st.floats(-2, 2), "presence_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(0.5, 2.0)})


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), params, st.lists(st.integers(0, 39), max_size=6),
       st.lists(st.integers(0, 39), max_size=6), st.integers(0, 2**64 - 1))
def test_the_sampler_chooses_the_same(seed: int, options: dict[str, Any], prompt: list[int],
                                      out: list[int], key: int) -> None:
    torch = pytest.importorskip("torch")
    sampler = pytest.importorskip("sglc.runtime.sampler")
    from sglc.runtime.request import SamplingParams

    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal(41)).astype(np.float32)
    allowed = rng.random(41) < 0.8
    allowed[7] = True
    draw = sampler.Draw(SamplingParams(**options), key, prompt=prompt, constrained=True)
    draw.words = np.packbits(np.append(allowed, [False] * 23), bitorder="little").view(np.int32)
    draw.index = len(out)
    if draw.tally is not None:
        for token in out:
            draw.tally.add(token)
    drawn = sampler.Sampler(41).draw(torch.from_numpy(logits.copy())[None], [draw])
    assert drawn.ids == [choose(logits, allowed, prompt, out, RunOptions(**options), key)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*b"abcdxy \n", *range(WIDE, Toy.vocab_size), 0xC3, 0xA9, EOS]),
                max_size=10),
       st.lists(st.sampled_from(("a", "bc", "é", "éy", "x", "cda", "\n\n", "b a")), max_size=3),
       st.sampled_from(((), ("b.",), (r"\s+",))), st.booleans())
def test_the_stop_watcher_stops_the_same(out: list[int], stop: list[str],
                                         patterns: tuple[str, ...], keep: bool) -> None:
    stops = pytest.importorskip("sglc.runtime.stops")
    tok = Toy()
    watcher = stops.StopWatcher(tok.byte_table, stop, patterns, trim=not keep)
    p = RunOptions(stop=tuple(stop), stop_regex=patterns, no_stop_trim=keep)
    for i, token in enumerate(out):
        theirs, ours = watcher.push(token), find_stop(tok, out[:i + 1], p)
        assert (theirs is None) == (ours is None)
        if theirs and ours:
            assert ours == (tuple(out[:theirs.kept]), theirs.leftover,
                            {"type": "stop", "matched": theirs.matched})
            return
