from __future__ import annotations

import random
import re
import threading
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from regexes import CHARACTER, DATE, EMAIL, IP
from toy_tokenizers import TableTokenizer, merged_tokenizer
from walks import allowed, examples, walk

import sglc.grammar as grammar
from sglc.errors import GrammarError
from sglc.grammar.fsm import FsmConstraint

# The characters that the bytes of these tokens can spell, all of them.
LETTERS = ["a", "b", "\n", "é", "ê", *map(chr, (0x9A69, 0x9A6A, 0x9AA9, 0x9AAA))]
PIECES = sorted({text.encode()[i:j] for text in ["ab\n", "éa", "bê", "\u9a69b", "a\u9aaa", "éê"]
                 for i in range(6) for j in range(i + 1, 7)} - {b""})
MOST = 3  # characters of the texts tried by brute force


def spellable(tail: bytes, tokens: list[bytes], memo: dict[bytes, bool]) -> bool:
    if not tail:
        return True
    if tail not in memo:
        memo[tail] = any(tail.startswith(t) and spellable(tail[len(t):], tokens, memo)
                         for t in tokens)
    return memo[tail]


FINITE = st.recursive(
    st.sampled_from(["a", "b", r"\n", "é", "[éê]", "[^ab]", ".", r"\w", "\u9a69", r"\s",
                     "[a\u9a6a]"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        inner.map(lambda p: f"(?:{p})?")),
    max_leaves=MOST)  # each leaf is one character


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(FINITE, st.lists(st.sampled_from(PIECES), min_size=1, max_size=14))
def test_masks_against_brute_force(pattern: str, tokens: list[bytes]) -> None:
    """A token is allowed iff some accepted text goes on with it and its rest can be spelled."""
    tokenizer = TableTokenizer(tokens, control=["<pad>", "<eos>", "<end>"], ends=["<eos>", "<end>"])
    match = re.compile(pattern).fullmatch
    texts = ["".join(letters).encode() for size in range(MOST + 1)
             for letters in product(LETTERS, repeat=size) if match("".join(letters))]
    memo: dict[bytes, bool] = {}
    if not any(spellable(text, tokens, memo) for text in texts):
        with pytest.raises(GrammarError) as caught:
            grammar.compile(regex=pattern, tokenizer=tokenizer)
        assert caught.value.code == "SGLC505"
        return
    constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
    states = {b"": constraint.start()}
    todo = [b""]
    while todo:
        before = todo.pop()
        state = states[before]
        expected = {i for i, token in enumerate(tokens)
                    if any(t.startswith(before + token)
                           and spellable(t[len(before) + len(token):], tokens, memo)
                           for t in texts)}
        ends = before in texts
        found = allowed(constraint, state, tokenizer.vocab_size)
        assert found == expected | (tokenizer.eos_ids if ends else set()), (before, pattern)
        assert constraint.accepting(state) == ends
        rest = [t[len(before):] for t in texts if t.startswith(before)]
        assert all(r.startswith(constraint.jump(state)) for r in rest)
        for i in range(tokenizer.vocab_size):
            after = constraint.advance(state, i)
            assert (after is not None) == (i in found)
            if i < len(tokens) and after is not None and before + tokens[i] not in states:
                states[before + tokens[i]] = after
                todo.append(before + tokens[i])


WALKS = [IP, CHARACTER, EMAIL, DATE, r"\w{1,50}", r'"[^"\\]*"', r".{0,40}", r"(?:ab|c)+\n?",
         r"[-+]?[0-9]*\.?[0-9]+[ \n]*", "é漢|[é-ꀀ]{2,3}", r"(?i)[k-m]{3}!", r"\W\D\S"]


@pytest.mark.parametrize("pattern", WALKS)
@pytest.mark.parametrize("vocabulary", ["bytes_only", "merged", "large"])
def test_random_walks_end_in_a_match(pattern: str, vocabulary: str,
                                     request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(vocabulary)
    constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
    rng = random.Random(pattern)
    for _ in range(2):
        text = walk(constraint, tokenizer, rng)
        assert re.fullmatch(pattern, text), text
        bound = constraint.max_tokens()
        assert bound is None or len(text.encode()) <= bound


@pytest.mark.parametrize("pattern", [*WALKS, r"[^@\s]+@\w+", "(?s).*", r"[a-z]{3,}|[a-y]{2}\d*"])
@pytest.mark.parametrize("vocabulary", ["merged", "large"])
def test_masks_agree_with_advancing_every_token(pattern: str, vocabulary: str,
                                                request: pytest.FixtureRequest) -> None:
    """The trie walk and the runs against reading each token byte by byte."""
    tokenizer = request.getfixturevalue(vocabulary)
    constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
    rng = random.Random(pattern)
    state = constraint.start()
    for _ in range(6):
        found = allowed(constraint, state, tokenizer.vocab_size)
        step = {i: constraint.advance(state, i) for i in range(tokenizer.vocab_size)}
        assert found == {i for i, after in step.items() if after is not None}
        ways = [after for i, after in step.items() if after is not None and i in found
                and i not in tokenizer.eos_ids]
        # Also states inside of a character.
        inner = [s for s in ways if s % constraint.nodes]
        state = rng.choice(inner if inner and rng.random() < 0.4 else ways or [0])


def test_tokens_with_equal_bytes_are_allowed_together() -> None:
    tokenizer = TableTokenizer([b"a", b"b", b"a", b"ab", b"ab", b"a"])
    constraint = grammar.compile(regex="ab?", tokenizer=tokenizer)
    assert allowed(constraint, 0, tokenizer.vocab_size) == {0, 2, 3, 4, 5}
    constraint = grammar.compile(regex="[a-z]*", tokenizer=tokenizer)
    assert allowed(constraint, 0, tokenizer.vocab_size) == {0, 1, 2, 3, 4, 5, 6}


def test_control_tokens_with_bytes_are_never_allowed() -> None:
    class Named(TableTokenizer):
        def token_bytes(self, token_id: int) -> bytes:
            return super().token_bytes(token_id) or b"<"

    constraint = grammar.compile(regex="<*", tokenizer=Named([b"<", b"<<"]))
    assert allowed(constraint, 0, 4) == {0, 1, 2}
    assert constraint.advance(0, 3) is None


def test_unspellable_ways_are_closed() -> None:
    tokenizer = TableTokenizer([b"a", b"bc", b"b", b"d"])
    constraint = grammar.compile(regex="a(bx|bc|d)", tokenizer=tokenizer)
    state = constraint.advance(0, 0)
    assert allowed(constraint, state, 6) == {1, 3}  # not "b": neither "x" nor "c" is a token
    assert constraint.advance(state, 2) is None
    with pytest.raises(GrammarError) as caught:
        grammar.compile(regex="a?x", tokenizer=tokenizer)
    assert caught.value.code == "SGLC505"


def test_a_language_without_text_is_refused(bytes_only: TableTokenizer) -> None:
    for pattern in ("a^", r"[^\w\W]", "$a", r"\ud800"):
        with pytest.raises(GrammarError) as caught:
            grammar.compile(regex=pattern, tokenizer=bytes_only)
        assert caught.value.code == "SGLC505"


def test_missing_bytes_close_only_what_needs_them() -> None:
    tokenizer = merged_tokenizer(1500, seed=3, without=b"\x04\xf1q")
    with pytest.raises(GrammarError):
        grammar.compile(regex="[\x04q]+", tokenizer=tokenizer)
    constraint = grammar.compile(regex="(?:x[\x04q]|xy)[\x04z]?", tokenizer=tokenizer)
    assert walk(constraint, tokenizer, random.Random(0)) in ("xy", "xyz")
    constraint = grammar.compile(regex="(?s).{5}", tokenizer=tokenizer)
    for seed in range(5):
        assert len(walk(constraint, tokenizer, random.Random(seed))) == 5


def test_kept_masks_are_bounded_and_read_only(merged: TableTokenizer,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sglc.grammar.fsm._MASK_BYTES", 4 * 400)
    constraint = grammar.compile(regex="[a-z]{0,30}!", tokenizer=merged)
    assert isinstance(constraint, FsmConstraint)
    first = constraint.mask(0).copy()
    state = 0
    for _ in range(30):
        assert len(constraint._masks) < 30
        state = constraint.advance(state, merged.id_of[b"a"])
        constraint.mask(state)
    assert (constraint.mask(0) == first).all()
    assert constraint.mask(0) is constraint.mask(0)
    with pytest.raises(ValueError):
        constraint.mask(0)[0] = 1


def test_threads_share_constraints() -> None:
    tokenizer = merged_tokenizer(1000, seed=5)
    failures: list[BaseException] = []
    masks: list[list[bytes]] = []

    def work(seed: int) -> None:
        try:
            rng = random.Random(seed)
            for pattern in rng.sample([IP, DATE, r"\w{1,50}", CHARACTER], 3):
                constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
                assert re.fullmatch(pattern, walk(constraint, tokenizer, rng, 60))
            constraint = grammar.compile(regex=DATE, tokenizer=tokenizer)
            masks.append([constraint.mask(s).tobytes() for s in range(8)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(m == masks[0] for m in masks)
