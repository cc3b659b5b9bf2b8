from __future__ import annotations

import re
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.runtime.stops import StopWatcher, byte_offset
from tests.reference_calls import find_stop
from tests.runtime.common import TOKENIZER

# Few characters, so that stops hit; bytes of "é" and of an emoji apart and together.
tokens = st.lists(st.sampled_from([97, 98, 10, 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80, 256,
                                   *range(258, 258 + len(TOKENIZER.extra))]), max_size=24)
stops = st.lists(st.sampled_from(["a", "ab", "ba", "aab", "é", "éa", "\n\n", "b\n", "xa",
                                  "\N{GRINNING FACE}", "a\N{GRINNING FACE}b", "aaa"]),
                 max_size=3).map(tuple)
patterns = st.lists(st.sampled_from([r"a+b", r"\n.", r"x*", r"é{2}", r"b$", r"(?<=a)b"]),
                    max_size=2).map(tuple)


@given(tokens, stops, patterns, st.booleans())
@settings(max_examples=300, deadline=None)
def test_stops_are_the_brute_force_s(made, stop, pattern, no_trim):
    params = SimpleNamespace(stop=stop, stop_regex=pattern, no_stop_trim=no_trim)
    watcher = StopWatcher(TOKENIZER.byte_table, stop, pattern, trim=not no_trim)
    streamed = ""
    for n, token in enumerate(made, 1):
        want = find_stop(TOKENIZER, made[:n], params)
        got = watcher.push(token)
        if want is None:
            assert got is None
            streamed += watcher.ready()
            continue
        assert got is not None
        assert tuple(made[:got.kept]) == want.ids
        assert (got.leftover, got.matched) == (want.leftover, want.finish["matched"])
        text = TOKENIZER.decode(want.ids) + want.leftover
        break
    else:
        text = TOKENIZER.decode(made)
    assert text.startswith(streamed)
    assert streamed + watcher.rest(text) == text


def watch(made, *stop, pattern=(), trim=True):
    watcher = StopWatcher(TOKENIZER.byte_table, stop, pattern, trim=trim)
    return watcher, [watcher.push(token) for token in made]


def test_streams_hold_back_what_may_still_change():
    watcher = StopWatcher(TOKENIZER.byte_table, ["END"])
    sent = []
    for token in b"aE\xc3\xa9EN\xf0":
        watcher.push(token)
        sent.append(watcher.ready())
    assert sent == ["a", "", "E", "é", "", "", "EN"]


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc", max_size=12), skip=st.sampled_from([0, 2]),
       stop=st.lists(st.text("abc", min_size=1, max_size=6), max_size=3))
def test_what_is_held_back_is_the_longest_beginning_of_a_stop(text, skip, stop):
    watcher = StopWatcher(TOKENIZER.byte_table, stop, skip=skip)
    sent = ""
    for i, token in enumerate(text.encode(), 1):
        if watcher.push(token) is not None:
            break
        sent += watcher.ready()
        seen = text[skip:i]
        held = max([n for s in stop for n in range(len(s)) if seen.endswith(s[:n])], default=0)
        assert sent == seen[:len(seen) - held]
    assert StopWatcher(TOKENIZER.byte_table, stop, skip=skip).ready() == ""


def test_a_character_cut_by_tokens_is_left_over_whole():
    _, found = watch([97, 0xC3, TOKENIZER.extra.index(b"\xa9x") + 258], "x")
    assert (found[-1].kept, found[-1].leftover) == (1, "é")


def test_the_earliest_start_wins_then_the_longest():
    ab = 258 + TOKENIZER.extra.index(b"ab")
    assert watch([ab], "b", "ab", "a")[1][-1].matched == "ab"
    assert watch([ab], "b", pattern=["a"])[1][-1].matched == "a"


def test_empty_matches_and_unmatchable_stops():
    assert watch([97, 97], "", "\ud800", pattern=["x*"])[1] == [None, None]
    with pytest.raises(re.error):
        watch([], pattern=["("])


@given(st.binary(max_size=12))
@settings(max_examples=100, deadline=None)
def test_byte_offset(data):
    text = data.decode("utf-8", "replace")
    at = [byte_offset(data, n) for n in range(len(text) + 1)]
    assert at[-1] == len(data) and at == sorted(set(at))
    assert "".join(data[a:b].decode("utf-8", "replace")
                   for a, b in pairwise(at)) == text
