"""Our regexes against Python's: its own regression suite, and many generated pairs; and masks on a
whole vocabulary against a second regex engine."""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from regexes import CHARACTER, DATE, EMAIL, IP, PATTERNS, SUBJECTS, accepts
from toy_tokenizers import TableTokenizer
from walks import allowed

import sglc.grammar as grammar
from sglc.errors import GrammarError
from sglc.grammar.automaton import Automaton
from sglc.grammar.nfa import Limits
from sglc.grammar.regex_parser import parse_regex

# Of the reasons for a refusal, those that are no regular construct.
NOT_REGULAR = ("look-ahead", "look-behind", "back-reference", "conditional")


def test_python_s_own_suite() -> None:
    suite = pytest.importorskip("test.re_tests")
    refused: Counter[str] = Counter()
    subjects = sorted({case[1] for case in suite.tests if len(case[1]) < 40}, key=repr)
    rng = random.Random(0)
    accepted = wrong = bad = 0
    patterns = sorted({case[0] for case in suite.tests if isinstance(case[0], str)})
    own = {p: {c[1] for c in suite.tests if c[0] == p} for p in patterns}
    for pattern in patterns:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected = re.compile(pattern)
            except re.error:
                with pytest.raises(GrammarError):
                    parse_regex(pattern)
                bad += 1
                continue
        try:
            machine = Automaton(parse_regex(pattern), Limits())
        except GrammarError as error:
            what = error.diagnostic.what
            assert "not supported" in what, (pattern, what)
            refused[what.partition(" is not supported")[0]] += 1
            continue
        accepted += 1
        for text in {*own[pattern], *rng.sample(subjects, 25)}:
            wrong += accepts(machine, text) != bool(expected.fullmatch(text))
    assert not wrong
    assert len(patterns) > 280 and bad > 5
    regular = accepted + sum(n for name, n in refused.items()
                             if not any(word in name for word in NOT_REGULAR))
    assert accepted >= 0.8 * regular, (accepted, regular, refused)


@pytest.mark.slow
@settings(max_examples=2500, deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(PATTERNS, st.lists(SUBJECTS, min_size=10, max_size=10))
def test_twenty_thousand_pairs(pattern: str, subjects: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = re.compile(pattern)
        except (re.error, OverflowError):
            return
    machine = Automaton(parse_regex(pattern), Limits())
    for text in subjects:
        assert accepts(machine, text) == bool(expected.fullmatch(text)), (pattern, text)


# No classes that depend on the version of Unicode: the other engine has its own.
WHOLE = [IP.replace(r"\d", "[0-9]"), EMAIL, DATE.replace(r"\d", "[0-9]"), "(?s).{0,40}",
         '"[^"]{1,50}"',
         r"[-+]?[0-9]*\.?[0-9]+", "(the|a) [a-zé漢]{1,9}( and [^a-z]*)?", "(?:ab|[^\n])+\n?",
         "[\u0400-\u04ff ]{2,30}|[\u3040-\u30ff]+。", "(?i)(yes|no|maybe)[.!]?",
         CHARACTER.replace(r"[\w\d\s]", "[^\"\n]")]


def viable(pattern: str, size: int, tokenizer: TableTokenizer, before: bytes) -> set[int]:
    """The tokens after which some text of the pattern is still possible, by partial matching."""
    regex = pytest.importorskip("regex")
    partial = regex.compile(pattern, regex.V0)

    # A set of such a pattern that has a character of a range has one of the range's ends, or one
    # beside a character that the pattern names (or, without regard to case, one of two others).
    borders = {ord(c) + d for c in pattern + "\u017f\u212a" for d in (-1, 0, 1)}

    def possible(data: bytes, known: dict[bytes, bool]) -> bool:
        if data not in known:
            try:
                known[data] = bool(partial.fullmatch(data.decode(), partial=True))
            except UnicodeDecodeError as bad:
                found = False
                if bad.reason == "unexpected end of data":
                    lo, hi = unfinished(data[bad.start:])
                    codes = {lo, hi} | {b for b in borders if lo <= b <= hi}
                    found = any(partial.fullmatch(data[:bad.start].decode() + chr(c), partial=True)
                                for c in codes if not 0xD800 <= c < 0xE000)
                known[data] = found
        return known[data]

    known: dict[bytes, bool] = {}
    return {i for i, token in enumerate(tokenizer.byte_table)
            if token and i < size and possible(before + token, known)}


def unfinished(tail: bytes) -> tuple[int, int]:
    """The first and last code point whose UTF-8 starts with `tail`."""
    size = 2 if tail[0] < 0xE0 else 3 if tail[0] < 0xF0 else 4
    code = tail[0] & (0x7F >> size)
    for byte in tail[1:]:
        code = code << 6 | byte & 0x3F
    left = 6 * (size - len(tail))
    least = {2: 0x80, 3: 0x800, 4: 0x10000}[size]
    return max(code << left, least), min((code + 1 << left) - 1, 0x10FFFF)


def check_masks(tokenizer: TableTokenizer, pairs: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(pairs):
        pattern = rng.choice(WHOLE)
        constraint = grammar.compile(regex=pattern, tokenizer=tokenizer)
        state, text = constraint.start(), b""
        for _ in range(rng.choice([0, 1, 2, 4, 9])):
            options = sorted(allowed(constraint, state, tokenizer.vocab_size)
                             - tokenizer.eos_ids)
            if not options:
                break
            token = rng.choice(options)
            text += tokenizer.byte_table[token]
            state = constraint.advance(state, token)
        found = allowed(constraint, state, tokenizer.vocab_size)
        expected = viable(pattern, tokenizer.vocab_size, tokenizer, text)
        assert found - tokenizer.eos_ids == expected - tokenizer.special_ids, (pattern, text)
        try:
            whole = bool(re.fullmatch(pattern, text.decode()))
        except UnicodeDecodeError:
            whole = False
        assert bool(found & tokenizer.eos_ids) == whole, (pattern, text)


def test_masks_on_a_vocabulary(merged: TableTokenizer) -> None:
    check_masks(merged, 10, 0)


@pytest.mark.slow
def test_many_masks_on_a_vocabulary(large: TableTokenizer) -> None:
    check_masks(large, 200, 1)
