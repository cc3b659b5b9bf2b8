from __future__ import annotations

import re
import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regexes import CHARACTER, DATE, IP, accepts, automaton
from walks import examples

from sglc.grammar.automaton import Automaton
from sglc.grammar.charset import LAST, CharSet, partition
from sglc.grammar.minimize import minimize
from sglc.grammar.nfa import Limits, TooLarge
from sglc.grammar.regex_parser import parse_regex
from sglc.grammar.syntax import words
from sglc.grammar.utf8 import front_end

RANGES = st.lists(st.tuples(st.integers(0, LAST), st.integers(0, 3000)).map(
    lambda p: (p[0], min(p[0] + p[1], LAST))), max_size=4)
SMALL = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 200)).map(
    lambda p: (p[0], p[0] + p[1])), max_size=4)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.one_of(RANGES, SMALL).map(CharSet), min_size=1, max_size=5), st.data())
def test_atoms_partition_and_utf8_front_end(sets: list[CharSet], data: st.DataObject) -> None:
    atoms = partition(sets)
    for charset, members in zip(sets, atoms.members, strict=True):
        assert atoms.charset(members) == charset
    assert sum(atoms.sizes) == CharSet(r for s in sets for r in s.ranges).size
    front = front_end(atoms.intervals(), atoms.count)
    borders = [c + d for lo, hi, _ in atoms.intervals() for c in (lo, hi) for d in (-1, 0, 1)]
    for code in [*borders, *data.draw(st.lists(st.integers(0, LAST), max_size=10))]:
        if not 0 <= code <= LAST or 0xD800 <= code <= 0xDFFF:
            continue
        expected = [i for i, s in enumerate(sets) if code in s]
        node, found = 0, front.dead
        for byte in chr(code).encode():
            found = int(front.table[node * 256 + byte])
            if found == front.dead:
                break
            node = found - front.atoms + 1
        assert (found != front.dead) == bool(expected)
        if expected:
            assert [i for i, m in enumerate(atoms.members) if found in m] == expected


@pytest.mark.parametrize("bad", [b"\xc0\xaf", b"\xc1\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80",
                                 b"\xf0\x80\x80\xaf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
                                 b"\x80", b"\xff", b"\xc3\x28"])
def test_front_end_refuses_what_is_not_utf8(bad: bytes) -> None:
    front = front_end([(0, 0xD7FF, 0), (0xE000, LAST, 0)], 1)
    node = 0
    for byte in bad:
        code = int(front.table[node * 256 + byte])
        if code == front.dead:
            return
        node = code - front.atoms + 1 if code >= front.atoms else 0
    raise AssertionError(f"{bad!r} was accepted")


def moore(rows: list[dict[int, int]], accepting: list[bool]) -> tuple[int, int]:
    """(states, moves) of the minimal automaton without dead states, the slow way."""
    reached, todo = {0}, [0]
    while todo:
        for target in rows[todo.pop()].values():
            if target not in reached:
                reached.add(target)
                todo.append(target)
    live = {s for s in reached if accepting[s]}
    while True:
        more = {s for s in reached - live if any(t in live for t in rows[s].values())}
        if not more:
            break
        live |= more
    if 0 not in live:
        return 0, 0
    color: dict[int, object] = {s: accepting[s] for s in live}
    while True:
        signs = {s: (color[s], tuple(sorted((a, color[t]) for a, t in rows[s].items()
                                            if t in live))) for s in live}
        numbers = {sign: i for i, sign in enumerate(dict.fromkeys(signs.values()))}
        fresh = {s: numbers[signs[s]] for s in live}
        if len(set(fresh.values())) == len(set(color.values())):
            break
        color = dict(fresh)
    leads = {color[s]: s for s in live}
    return len(leads), sum(t in live for s in leads.values() for t in rows[s].values())


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[dict[int, int]], list[bool]]:
    count = draw(st.integers(1, 12))
    atoms = draw(st.integers(1, 3))
    rows = [{a: draw(st.integers(0, count - 1)) for a in range(atoms) if draw(st.booleans())}
            for _ in range(count)]
    return rows, draw(st.lists(st.booleans(), min_size=count, max_size=count))


@settings(max_examples=examples(150), deadline=None)
@given(machines())
def test_minimize_is_minimal_and_keeps_the_language(
        machine: tuple[list[dict[int, int]], list[bool]]) -> None:
    rows, accepting = machine
    small, ends, infinite = minimize(rows, accepting)
    assert (len(small), sum(map(len, small))) == moore(rows, accepting)
    pairs, todo = {(0, 0)}, [(0, 0)] if small else []
    while todo:
        a, b = todo.pop()
        assert accepting[a] == ends[b]
        for atom, target in rows[a].items():
            if atom in small[b]:
                pair = target, small[b][atom]
                if pair not in pairs:
                    pairs.add(pair)
                    todo.append(pair)
    assert infinite == _has_cycle(small)


def _has_cycle(rows: list[dict[int, int]]) -> bool:
    left = set(range(len(rows)))
    while True:
        ends = {s for s in left if not any(t in left for t in rows[s].values())}
        if not ends:
            return bool(left)
        left -= ends


@pytest.mark.parametrize(("pattern", "states"), [
    (IP, 54), (r"\d{4}-\d{2}-\d{2}", 11), (r"\w{1,50}", 51), (r'"[a-z]{1,200}"', 203),
    ("(a|b)*a(a|b){11}", 4096), ("(a*)*b|a*b", 2), ("aa*|a*aa", 2), ("(ab)*|(ab)*ab|", 2),
    ("x(a{6})*y|z(a{3}a{3})*y", 8), ("(?:x?){9}", 10), ("(a{1,3}){2,4}", 13),
    ("(?:a*b){3}a*", 4), ("a+[ab]*|", 2)])
def test_states_of_the_minimal_automaton(pattern: str, states: int) -> None:
    assert len(automaton(pattern).rows) == states


def test_equal_languages_give_equal_automata() -> None:
    one, two = automaton("(?:a|b)*c|d"), automaton("d|[ab]*?c")
    assert (one.rows, one.accepting) == (two.rows, two.accepting)
    one, two = automaton("foo|bar|"), Automaton(words(["", "bar", "foo"]), Limits())
    assert (one.rows, one.accepting) == (two.rows, two.accepting)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.text("abé漢", max_size=5), min_size=1, max_size=8))
def test_choices_are_exactly_themselves(choices: list[str]) -> None:
    machine = Automaton(words(choices), Limits())
    for size in range(4):
        for letters in product("abé漢", repeat=size):
            text = "".join(letters)
            assert accepts(machine, text) == (text in choices)
    assert len(machine.longest_text().encode()) == max(len(c.encode()) for c in choices)
    assert machine.longest_text() in choices


@pytest.mark.parametrize(("pattern", "forced"), [
    ("abc", "abc"), ("ab(c|d)", "ab"), ("a(b)?", "a"), ("x(ab)+", "xab"), ("a*", ""),
    ("é漢!", "é漢!"), ("[éê]", ""), ("", ""), ("(?i)a", ""), ("aaa|aab", "aa")])
def test_forced_text_stops_where_the_text_may(pattern: str, forced: str) -> None:
    assert automaton(pattern).forced(0) == forced.encode()


def test_forced_text_finishes_a_character() -> None:
    machine = automaton("é漢")
    first = int(machine.front.table["é".encode()[0]]) - machine.front.atoms + 1
    assert machine.forced(first) == "é漢".encode()[1:]
    machine = automaton("[éê]x")
    first = int(machine.front.table["é".encode()[0]]) - machine.front.atoms + 1
    assert machine.forced(first) == b""


@pytest.mark.parametrize(("pattern", "size"), [
    ("a{2,5}", 5), ("[aé漢]{3}", 9), ("a*", None), ("(a|bc|)d?", 3), ("", 0), (DATE, 25),
    ("a|(b|c*x)", None)])
def test_longest_text(pattern: str, size: int | None) -> None:
    machine = automaton(pattern)
    text = machine.longest_text()
    assert (text is None) == (size is None)
    if text is not None:
        assert len(text.encode()) == size == machine.bytes_left[0]
        assert re.fullmatch(pattern, text)


@pytest.mark.parametrize("pattern", [
    "(a{100}){100}{1}", "((a{1,100}){1,100}){1,100}", "(.|\n)*(foo|bar)(.|\n){0,30}qux",
    "(a|b)*a(a|b){20}", "(((a?){50}){50}){50}", "(a*){1,9999}b", "([ab]{1,50}c?){200}",
    "(?:x?){10000}", "a{10000}{0}".replace("{0}", ""), r"(\w|\d|\s){1,3000}"])
def test_hostile_patterns_end_soon(pattern: str) -> None:
    begin = time.process_time()
    try:
        automaton(pattern)
    except (TooLarge, ValueError):
        pass
    assert time.process_time() - begin < 8


def test_limits_are_counts() -> None:
    node = parse_regex("(a|b)*a(a|b){11}")
    for limits in (Limits(raw_states=4000), Limits(states=4000), Limits(moves=5000),
                   Limits(nfa_states=10), Limits(table_cells=4000)):
        with pytest.raises(TooLarge):
            Automaton(node, limits)
    assert len(Automaton(node, Limits(states=4096)).rows) == 4096


def test_the_character_regex() -> None:
    machine = automaton(CHARACTER)
    assert machine.forced(0) == b'{\n    "name": "'
    assert not machine.infinite
    assert re.fullmatch(CHARACTER, machine.longest_text())


@settings(max_examples=examples(20), deadline=None)
@given(st.sampled_from((r"\w[é-ü]|\d{2}", "[^a]", "a|é|漢|🙂", "[\\x00-\U0010ffff]", "abc")),
       st.sets(st.integers(0, 255)))
def test_what_can_be_spelled_without_some_bytes(pattern: str, missing: set[int]) -> None:
    """Against following every byte of every character."""
    front = automaton(pattern).front
    allowed = np.ones(256, dtype=bool)
    allowed[list(missing)] = False
    reach = np.zeros((front.nodes, front.atoms), dtype=bool)
    for node in (*range(1, front.nodes), 0):  # children come first, the root last
        for byte in np.flatnonzero(allowed).tolist():
            code = int(front.table[node * 256 + byte])
            if code < front.atoms:
                reach[node, code] = True
            elif code < front.dead:
                reach[node] |= reach[code - front.atoms + 1]
    assert np.array_equal(front.spellable(allowed), reach)
