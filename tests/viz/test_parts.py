"""The viewer's parts: what is known of boxes, repeats, differences, automata, escaping."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sglc as sgl
from sglc import grammar
from sglc.grammar.charset import LAST, CharSet
from sglc.grammar.fsm import FsmConstraint
from sglc.tokens.bytes import ByteTokenizer
from sglc.viz.charts import thinned, ticks
from sglc.viz.diff import ranges
from sglc.viz.escape import escaped, json_block, lines, visible
from sglc.viz.facts import facts, readers
from sglc.viz.fsm import class_text, compressed, draw
from sglc.viz.markup import el, table
from sglc.viz.picture import Node, edges, picture
from sglc.viz.repeats import folded
from tests.viz.programs import essays, shared

TOKENIZER = ByteTokenizer()


def boxes(program: Any, **arguments: Any) -> list[Node]:
    return picture(next(iter(program.compile(**arguments).stages["plan"].programs.values())))


# --- facts -------------------------------------------------------------------------------------

def test_facts_of_boxes() -> None:
    nodes = boxes(shared)
    known = facts(nodes, TOKENIZER, shared.compile().explain().remarks)
    named = {n.title: n for n in nodes if n.title}
    top = nodes[0]
    f = known[top]
    assert f.tokens.value == len("You are brief. ") and f.tokens.mark == "="
    assert f.everywhere and f.before == 0
    assert {n.title for n in f.readers} == {"gen one", "gen two", "gen three"}
    assert readers(nodes)[top] == 3 and f.until is not None
    assert str(known[named["gen two"]].tokens) == "<= 6"
    own = named["gen two"].parent
    assert own is not None and not known[own].everywhere and known[own].tokens.mark == "~"
    assert [n.title for n in known[own].readers] == ["gen two"]
    assert "".join(known[top].spelled[0]) == "You are brief. "


def test_remarks_stand_at_the_boxes_they_are_about() -> None:
    @sgl.program
    def twice(s: Any) -> None:
        a, b = s.fork(2)
        a += "Say a word." + sgl.gen("x", max_tokens=4)
        b += "Say a word." + sgl.gen("y", max_tokens=4)
        s += a["x"] + b["y"] + sgl.gen("z")

    nodes = boxes(twice)
    known = facts(nodes, TOKENIZER, twice.compile().explain().remarks)
    codes = {n.title: [d.code for d in known[n].remarks] for n in nodes if n.kind == "gen"}
    assert codes["gen z"] == [] and "SGLC404" in codes["gen x"] + codes["gen y"]


def test_calls_of_python_use_what_they_wait_for() -> None:
    """Not the prompt that is kept if they raise."""
    def look(query: str) -> str:
        return "x"

    @sgl.program
    def looks(s: Any, query: str) -> None:
        s += query + sgl.gen("a", max_tokens=2)
        found = look(query)
        s += sgl.gen("b", max_tokens=2)
        s += found
        s += look(s["b"])

    uses = {(e.source.title, e.target.title) for e in edges(boxes(looks, query="x"))
            if e.kind == "use" and e.target.kind == "host"}
    assert uses == {("gen b", "look()"), ("look()", "as_text()")}


# --- repeats -----------------------------------------------------------------------------------

def test_repeats_are_shown_once() -> None:
    nodes = boxes(essays)
    fold = folded(nodes)
    shown = list(fold.values())
    assert len(nodes) > 96 and len(shown) < 12
    gen = next(n for n in shown if n.title == "gen judgment")
    assert gen.repeats == 48 and readers(shown)[shown[0]] == readers(nodes)[nodes[0]]
    summary = next(n for n in shown if n.sources)
    assert summary.sources == [gen]
    for n in shown:  # they know each other only
        for other in (n.parent, *n.children, *n.sources, *(j for j, _ in n.joins)):
            assert other is None or other in shown
    assert {e.kind for e in edges(shown)} == {"prompt", "use"}


@given(st.integers(0, 2**32 - 1))
def test_folding_any_program_keeps_the_counts(seed: int) -> None:
    from random import Random

    from tests.passes.random_modules import random_module

    for program in random_module(Random(seed)).programs.values():
        nodes = picture(program)
        shown = list(folded(nodes, least=2).values())
        assert sum(n.repeats for n in shown) == len(nodes)
        order = {n: i for i, n in enumerate(shown)}
        for n in shown:
            assert n.parent is None or order[n.parent] < order[n]


# --- differences -------------------------------------------------------------------------------

_LINES = st.lists(st.integers(0, 12), max_size=40)


@given(_LINES, _LINES)
def test_ranges_tell_what_differs(before: list[int], after: list[int]) -> None:
    made: list[int] = []
    i = k = 0
    last = ""
    for kind, a, b, c, d in ranges(before, after):
        assert (a, c) == (i, k) and kind != last and (b > a or d > c)
        if kind == "e":
            assert before[a:b] == after[c:d]
        made += before[a:b] if kind == "e" else after[c:d]
        i, k, last = b, d, kind
    assert (i, k) == (len(before), len(after)) and made == after


def test_ranges_find_what_is_equal() -> None:
    assert ranges("abcdef", "abXdef") == [("e", 0, 2, 0, 2), ("r", 2, 3, 2, 3), ("e", 3, 6, 3, 6)]
    assert ranges("abc", "abc") == [("e", 0, 3, 0, 3)]
    assert ranges("", "ab") == [("r", 0, 0, 0, 2)] and ranges("", "") == []


# --- automata ----------------------------------------------------------------------------------

def automaton(regex: str) -> Any:
    constraint = grammar.compile(regex=regex, tokenizer=TOKENIZER)
    assert isinstance(constraint, FsmConstraint)
    return constraint.automaton


def test_forced_text_is_one_bold_edge() -> None:
    machine = compressed(automaton(r"Name: [a-z]+, done\."))
    jumps = [e.label for e in machine.edges if e.jump]
    assert jumps == ["Name: ", " done."]
    assert len(machine.states) == 5 and len(machine.accepting) == 1
    picture_ = draw(machine, "x")
    assert picture_.count('class="fsm-state"') == 5 and picture_.count('data-jump="1"') == 2
    assert picture_.count('class="fsm-edge"') == len(machine.edges)


def test_the_compressed_automaton_reads_the_same_texts() -> None:
    machine = compressed(automaton("(ab|ac)*d|x[0-9]{2}"))

    def reads(text: str) -> bool:
        at = {(0, 0)}
        while at:
            if any(i == len(text) and q in machine.accepting for q, i in at):
                return True
            after = set()
            for q, i in at:
                for e in machine.edges:
                    if e.source == q:
                        word = e.label if e.jump else text[i:i + 1]
                        import re

                        if text.startswith(word, i) and i < len(text) and (
                                e.jump or re.fullmatch(e.label, word)):
                            after.add((e.target, i + len(word)))
            at = after
        return False

    for text, fine in (("d", True), ("abd", True), ("abacd", True), ("x12", True), ("x1", False),
                       ("ab", False), ("add", False)):
        assert reads(text) is fine, text


def test_a_large_automaton_is_cut_off() -> None:
    machine = compressed(automaton("[ab]{200}"), most=50)
    assert len(machine.states) == 50 and machine.left_out == 151
    assert all(e.target in machine.states for e in machine.edges)


@pytest.mark.parametrize(("ranges_", "said"), [
    ([(97, 97)], "a"), ([(97, 98)], "[ab]"), ([(48, 57)], "[0-9]"), ([(10, 10)], "\\n"),
    ([(0, 33), (35, LAST)], '[^"]'), ([(0, LAST)], "any"), ([(32, 32)], "␣"),
    ([(42, 43), (45, 45), (93, 93)], "[*+\\-\\]]"),
    ([(0x202E, 0x202E)], "\\u202e"), ([(0, 0xD7FF), (0xE000, LAST)], "any")])
def test_classes_in_words(ranges_: list[tuple[int, int]], said: str) -> None:
    assert class_text(CharSet(ranges_)) == said


# --- text --------------------------------------------------------------------------------------

@given(st.text())
def test_escaped_text_stays_text(text: str) -> None:
    from html import unescape

    written = escaped(text)
    assert not set(written) & set("<>\"'") and unescape(written) == lines(text)
    assert visible(written.replace("\n", "")) == written.replace("\n", "")


@given(st.recursive(st.text() | st.none() | st.booleans() | st.integers(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_cannot_end_its_script(data: Any) -> None:
    written = json_block(data)
    assert not set(written) & set("<>&\u2028\u2029\u202e\ud800")
    json.loads(written)


def test_elements() -> None:
    assert str(el("p", "a<b", class_="x", data_n='"', hidden=False, open=True)) == (
        '<p class="x" data-n="&quot;" open>a&lt;b</p>')
    shown = str(table(("a", "b"), [("x", "12"), (el("b", "y"), "<= 3")]))
    assert shown.count('<td class="n">') == 2 and "<b>y</b>" in shown and "&lt;= 3" in shown


def test_charts() -> None:
    assert ticks(10, 5) == [0, 2, 4, 6, 8, 10] and ticks(0) == [0.0]
    points = [(float(i), float(i % 7)) for i in range(5000)]
    few = thinned(points)
    assert len(few) <= 600 and max(y for _, y in few) == 6.0


def test_values_are_written_as_in_python() -> None:
    @sgl.program
    def say(s: Any, names: list[str]) -> None:
        s += names[0] + " says" + sgl.gen("x", max_tokens=2)
        s += s["x"].strip().upper() + sgl.gen("y", max_tokens=2)

    texts = [[p.text for p in n.pieces] for n in boxes(say, names=["Ann"]) if n.kind == "text"]
    assert texts == [["names[0]", " says"], ["x.strip().upper()"]]
