"""Prompts against an oracle that reads nothing but their spans."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.tokens.prompt import Generated, Prompt, Special, Text
from sglc.tokens.tokenizer import Tokenizer

ALL = ("byte_tokenizer", "small", "split_bpe", "dummy_prefix")
SNIPPETS = [
    "the ", "river", " ", "  ", "\n", "\n\n", "'", "r", "e", "don't ", "12", "3", "é", "日本", "😀",
    ".", "a list of three things:\n1. ", "<|im_end|>", "", "\x04", "The answer is not in the box, "]
TEXT = st.lists(st.sampled_from(SNIPPETS), max_size=8).map("".join)


@pytest.fixture(scope="session")
def dummy_prefix(small: Tokenizer) -> Tokenizer:
    """The small vocabulary, with a BOS and a space put before a prompt's opening text."""
    import dataclasses

    from sglc.tokens.bpe import BpeTokenizer

    pre = small.vocab.pre_tokenizer
    return BpeTokenizer(dataclasses.replace(
        small.vocab, dummy_prefix=True, first_pre_tokenizer=pre | {"add_prefix_space": True},
        bos_id=0))


def oracle(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    run, first = "", True
    for span in [*prompt.spans(), None]:
        if isinstance(span, Text):
            run += span.text
            continue
        if run:
            ids += tokenizer.encode(run, first)
        run, first = "", False
        if isinstance(span, Special):
            ids.append(span.id)
        elif isinstance(span, Generated):
            ids += span.ids
    return ids


def grow(prompt: Prompt, data: st.DataObject, steps: int) -> tuple[Prompt, str]:
    """A random extension of `prompt`, and the text it added."""
    tokenizer, text = prompt.tokenizer, ""
    for _ in range(data.draw(st.integers(0, steps))):
        kind = data.draw(st.sampled_from("ttttegsf"))
        if kind == "g":
            ids = tuple(data.draw(st.lists(
                st.integers(0, tokenizer.vocab_size - 1), max_size=3)))
            prompt = prompt.generated(ids)
            text += tokenizer.decode(ids)
        elif kind == "s":
            prompt = prompt.special(data.draw(st.sampled_from(sorted(tokenizer.special_ids))))
        elif kind == "f" and steps > 2:
            child, more = grow(prompt, data, 2)
            prompt = prompt.append_since(child, prompt)
            text += more
        else:
            more = data.draw(TEXT)
            if kind == "e" and not prompt.tail and _at_border(prompt):
                prompt = prompt.append_encoded(tokenizer.encode_run(more, prompt.first))
            else:
                prompt = prompt.append(more)
            text += more
    return prompt, text


def _at_border(prompt: Prompt) -> bool:
    return not isinstance(prompt.span, Text)


@pytest.mark.parametrize("which", ALL)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_ids_are_a_function_of_the_spans(
        request: pytest.FixtureRequest, which: str, data: st.DataObject) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    base, before = grow(Prompt.empty(tokenizer), data, 4)
    prompt, after = grow(base, data, 6)
    assert list(prompt.token_ids()) == oracle(tokenizer, prompt)
    assert list(base.token_ids()) == oracle(tokenizer, base)  # values are immutable
    assert prompt.text() == before + after == base.text() + prompt.text_since(base)
    # the same spans put together in another way
    again = Prompt.empty(tokenizer)
    for span in prompt.spans():
        again = again.append_span(span)
    assert again.token_ids() == prompt.token_ids() and again.text() == prompt.text()
    joined = Prompt.empty(tokenizer).append_since(prompt, Prompt.empty(tokenizer))
    assert joined.token_ids() == prompt.token_ids()


@pytest.mark.parametrize("which", ALL)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_stable_ids_are_a_prefix_of_every_extension(
        request: pytest.FixtureRequest, which: str, data: st.DataObject) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    prompt, _ = grow(Prompt.empty(tokenizer), data, 6)
    stable = prompt.stable_ids()
    longer = prompt.append(data.draw(TEXT)).append(data.draw(TEXT))
    assert longer.token_ids()[:len(stable)] == stable
    assert prompt.token_ids()[:len(stable)] == stable
    assert longer.stable_ids()[:len(stable)] == stable


@pytest.mark.parametrize("which", ALL)
def test_borders_end_runs_and_bos_comes_once(
        request: pytest.FixtureRequest, which: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    empty = Prompt.empty(tokenizer)
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    assert list(empty.token_ids()) == bos
    if bos:
        assert list(empty.special(bos[0]).token_ids()) == bos
        assert list(empty.append("a").special(bos[0]).token_ids()) == [
            *bos, *tokenizer.encode("a", True), *bos]
    split = empty.append("the ").generated(()).append("river")
    assert list(split.token_ids()) == [
        *bos, *tokenizer.encode("the ", True), *tokenizer.encode("river")]
    assert split.text() == "the river"
    end = tokenizer.special["<|im_end|>"]
    assert list(empty.append("the ").special(end).append("river").token_ids()) == [
        *bos, *tokenizer.encode("the ", True), end, *tokenizer.encode("river")]


def test_spans_since_another_prompt_are_refused(byte_tokenizer: Tokenizer) -> None:
    empty = Prompt.empty(byte_tokenizer)
    with pytest.raises(ValueError):
        empty.append("a").spans(empty.append("a"))


@pytest.mark.parametrize("which", ALL)
def test_long_prompts_in_small_steps(request: pytest.FixtureRequest, which: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    prompt, text = Prompt.empty(tokenizer), ""
    for i in range(60):
        prompt = prompt.append(f"Item {i}: the river  'r")
        prompt = prompt.append("e not\n")
        text += f"Item {i}: the river  're not\n"
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    assert list(prompt.token_ids()) == bos + tokenizer.encode(text, True)
    assert prompt.text() == text
    if tokenizer.can_cut:
        assert len(prompt.tail) < 100
