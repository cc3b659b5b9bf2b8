from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref

import pytest
from regexes import DATE, accepts
from toy_tokenizers import TableTokenizer, merged_tokenizer
from walks import allowed

import sglc.grammar as grammar
from sglc.errors import GrammarError


def test_the_package_is_lazy() -> None:
    code = ("import sys, sglc.grammar; assert 'numpy' not in sys.modules; "
            "sglc.grammar.compile; assert 'llguidance' not in sys.modules; "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not hasattr(grammar, "no_such_name")


@pytest.mark.parametrize("given", [{}, {"regex": "a", "choices": ["a"]}, {"dtype": complex},
                                   {"dtype": "integer"}])
def test_what_is_given_must_be_one_known_thing(bytes_only: TableTokenizer, given: dict) -> None:
    with pytest.raises(GrammarError) as caught:
        grammar.compile(**given, tokenizer=bytes_only)
    assert caught.value.code == "SGLC004"


@pytest.mark.parametrize("choices", [[], [""], ["a", "b", "a"], "ab", ["a", 1]])
def test_bad_choices(bytes_only: TableTokenizer, choices: object) -> None:
    with pytest.raises(GrammarError) as caught:
        grammar.compile(choices=choices, tokenizer=bytes_only)
    assert caught.value.code == "SGLC005"


def test_choices_are_verbatim(bytes_only: TableTokenizer) -> None:
    constraint = grammar.compile(choices=["a.b", "a*", "a"], tokenizer=bytes_only)
    state = constraint.advance(constraint.start(), ord("a"))
    assert allowed(constraint, state, bytes_only.vocab_size) == {ord("."), ord("*"), 256}
    assert constraint.max_tokens() == 3
    assert constraint.jump(constraint.start()) == b"a"


@pytest.mark.parametrize(("dtype", "good", "bad"), [
    (int, ["12", "-3", "+4 \n"], ["", "1.5", "a"]), ("float", ["1.5", ".5", "-2 "], ["1.", "e"]),
    (bool, ["True", "False"], ["true", ""]), (str, ['"a b"', '""', '"é\n"'], ['"a.b"', "a"])])
def test_dtypes(bytes_only: TableTokenizer, dtype: type | str, good: list[str],
                bad: list[str]) -> None:
    constraint = grammar.compile(dtype=dtype, tokenizer=bytes_only)
    assert [t for t in good if not accepts(constraint.automaton, t)] == []
    assert [t for t in bad if accepts(constraint.automaton, t)] == []
    assert grammar.compile(regex=grammar.dtype_regex(dtype), tokenizer=bytes_only) is constraint


def test_equal_constraints_are_compiled_once() -> None:
    tokenizer, other = merged_tokenizer(400), merged_tokenizer(400)
    first = grammar.compile(regex="foo|bar", tokenizer=tokenizer)
    assert grammar.compile(regex="foo|bar", tokenizer=tokenizer) is first
    assert grammar.compile(regex="(?:bar|foo)", tokenizer=tokenizer) is first
    assert grammar.compile(choices=["foo", "bar"], tokenizer=tokenizer) is first
    assert grammar.compile(regex="foo|bar", tokenizer=other) is not first


def test_the_cache_dies_with_the_tokenizer() -> None:
    tokenizer = merged_tokenizer(300)
    constraint = weakref.ref(grammar.compile(regex=DATE, tokenizer=tokenizer))
    assert constraint() is not None
    del tokenizer
    gc.collect()
    assert constraint() is None


def test_many_choices(merged: TableTokenizer) -> None:
    choices = [f"item {i:04d}-{(i * 7919) % 9973}" for i in range(2000)]
    constraint = grammar.compile(choices=choices, tokenizer=merged)
    state = constraint.start()
    for token in merged.encode(choices[1234]):
        state = constraint.advance(state, token)
    assert constraint.accepting(state)


def test_a_bad_regex_names_its_place(bytes_only: TableTokenizer) -> None:
    with pytest.raises(GrammarError, match=re.escape("at position 2 of the regex")):
        grammar.compile(regex="ab(?=c)", tokenizer=bytes_only)
