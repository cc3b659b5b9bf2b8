from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from regexes import PATTERNS, SUBJECTS, accepts, automaton
from walks import examples

from sglc.errors import GrammarError
from sglc.grammar.charset import ANY, CharSet, category
from sglc.grammar.regex_parser import parse_regex
from sglc.grammar.syntax import Chars, Words


def compiled(pattern: str) -> re.Pattern[str] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return re.compile(pattern)
        except (re.error, OverflowError):
            return None


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PATTERNS, st.lists(SUBJECTS, min_size=4, max_size=12))
@example("a$\n", ["a", "a\n", "\n"])
@example("(?m)a$\n^b", ["a\nb", "ab"])
@example("(?m)(^a$\n?)+", ["a\na", "a", "aa", "a\n", "a\na\n"])
@example(r"\Aa\Z|^$", ["a", "", "\n"])
@example("(a|^b)*", ["ab", "ba", "baa", "bb"])
@example("$^", ["", "\n"])
@example("(?s)a$.", ["a\n", "ab"])
def test_language_is_that_of_fullmatch(pattern: str, subjects: list[str]) -> None:
    expected = compiled(pattern)
    if expected is None:
        with pytest.raises(GrammarError):
            parse_regex(pattern)
        return
    machine = automaton(pattern)
    for text in subjects:
        assert accepts(machine, text) == bool(expected.fullmatch(text)), (pattern, text)


@settings(max_examples=examples(150), deadline=None)
@given(st.text(st.sampled_from("ab()[]{}|*+?^$.\\,-:0129diPx<>=!#Nub \n"), max_size=10))
def test_random_characters_agree_on_what_a_pattern_is(pattern: str) -> None:
    expected = compiled(pattern)
    try:
        machine = automaton(pattern)
    except GrammarError as error:
        assert error.code == "SGLC006"
        assume(expected is not None)
        refused = ("not supported", "larger than", "too large")
        assert any(words in str(error) for words in refused), (pattern, str(error))
        return
    assert expected is not None, pattern
    for text in ("", "a", "b", "ab", "aa", "0", "\n", "a\n", "{", "aab", "{0", "-"):
        assert accepts(machine, text) == bool(expected.fullmatch(text)), (pattern, text)


def characters(charset: CharSet) -> str:
    codes = [np.arange(lo, hi + 1, dtype="<u4") for lo, hi in charset.ranges]
    return b"".join(c.tobytes() for c in codes).decode("utf-32-le")


EVERYTHING = characters(ANY)


@pytest.mark.parametrize("pattern", [
    r"\d", r"\w", r"\s", r"\D", r"[^\w\s]", "(?a)[^\\W\\d]", "(?i)k", "(?i)[^k]", "(?i)[a-z]",
    "(?i)[À-ʯ]", "(?ia)[a-zé]", "(?i)σ", r"(?i)[\x00-\U0010ffff]", "(?i)İ", "(?i)[i-j]", "(?i)ß",
    r"(?i)[\W_]", r"(?i)[\w]", r"(?i)[^\dǅ]", "(?i)[\U00010400-\U00010410]", "(?i)ſ", "."])
def test_classes_agree_on_every_code_point(pattern: str) -> None:
    """Against `re` itself, on all of Unicode."""
    node = parse_regex(pattern)
    ours = (node.charset if isinstance(node, Chars)
            else CharSet((ord(w), ord(w)) for w in node.words))
    assert re.sub(pattern, "", EVERYTHING) == characters(ours.negate())


def test_category_is_shared_between_calls() -> None:
    assert category("w", False) is category("w", False)


@pytest.mark.parametrize(("pattern", "name", "position"), [
    ("ab(?=c)", "look-ahead", 2), ("(?!a)b", "negative look-ahead", 0),
    ("(?<=a)b", "look-behind", 0), ("x(?<!a)b", "negative look-behind", 1),
    (r"(a)\1", "back-reference", 3), ("(?P<n>a)(?P=n)", "back-reference", 8),
    (r"a\b", "word border", 1), (r"\Ba", "word border", 0), ("(a)?(?(1)b|c)", "conditional", 4),
    ("(?>a+)b", "atomic", 0), ("a++b", "possessive", 1), ("a{1,2}+", "possessive", 1)])
def test_what_is_not_regular_is_refused_by_name(pattern: str, name: str, position: int) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_regex(pattern)
    assert caught.value.code == "SGLC006"
    assert name in caught.value.diagnostic.what
    assert f"position {position} " in caught.value.diagnostic.what


@pytest.mark.parametrize("pattern", [
    "(", ")", "a)", "[", "[a", "[]", "*", "a**", "a{2}{3}", "a{3,2}", "^*", r"\A+", "(?P<1>a)",
    "(?P<a>x)(?P<a>y)", r"\q", r"[\q]", "\\", r"\x4", r"\u12", r"\U00110000", r"\N{no such}",
    r"\N", "[b-a]", r"[\d-z]", "(?z)", "(?i", "a(?i)b", "(?i-i:a)", "(?-a:b)", "(?L)a", "(?au)a",
    "(?P>a)", "(?#", "a{10001}", "a{99999999999999999999}", "(?:" * 100 + "a" + ")" * 100,
    "a" * 100_001])
def test_bad_patterns_are_errors_with_a_code(pattern: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_regex(pattern)
    assert caught.value.code == "SGLC006"


@pytest.mark.parametrize("pattern", [
    "(?x) a b # c\n [ ] \\  d", "(?x)(?#c) a (?-x: b) c", "(?#c)(?i)(?s)a.", "(?x:a b)\n#c",
    r"\N{LATIN SMALL LETTER E WITH ACUTE}", r"[\b\a\f\v\0\07\101]", r"\07\101\0a", "(?P<w>a)+",
    "a{,}", "a{", "a{1", "a{1,x}", "a{}", "(?u:\\w)", "[a\\-z]", "[-a]", "[+-.]", "(?:)*"])
def test_less_common_syntax(pattern: str) -> None:
    machine, expected = automaton(pattern), re.compile(pattern)
    texts = ["", "a", "ab", "ab d", "ab  d", "a b c", "a bc", "ac", "a.", "A\n", "é", "\b", "\0",
             "A", "\7A\0a", "aa", "a{", "a{1", "a{1,x}", "a{}", "-", "z", "+", ",", "ab\n#c"]
    assert [accepts(machine, t) for t in texts] == [bool(expected.fullmatch(t)) for t in texts]


def test_lone_surrogates_match_nothing() -> None:
    assert parse_regex("\ud800") == Words(())
    assert parse_regex("a|\\ud800b") == Words(("a",))


def test_equal_spellings_give_equal_trees() -> None:
    assert parse_regex("a|b|c") == parse_regex("[cba]") == parse_regex("[a-c]")
    assert parse_regex("(?:ab)c") == parse_regex("abc") == parse_regex(r"\x61bc")
    assert parse_regex("(a|bc)?|") == parse_regex("(?:bc|a)?|")
