from __future__ import annotations

import re

import pytest
from regexes import accepts
from toy_tokenizers import TableTokenizer

import sglc.grammar as grammar
from sglc.errors import GrammarError
from sglc.grammar.automaton import Automaton
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.grammar_text import grammar_node
from sglc.grammar.json_shapes import Unsupported
from sglc.grammar.llguidance_backend import LlguidanceConstraint
from sglc.grammar.nfa import Limits


def machine(text: str) -> Automaton:
    return Automaton(grammar_node(text), Limits())


@pytest.mark.parametrize(("text", "good", "bad"), [
    ('start: "a" b? [c] "d"\nb: "x" | "y"\nc: "z"', ["ad", "axd", "azd", "ayzd"], ["a", "abd"]),
    ('start: WORD ("," WORD)*\nWORD: /[a-z]+/  // words\n# and a comment',
     ["a", "ab,c"], ["", "a,", "A"]),
    ('?start: a~2 | a ~ 4..5 -> many\na: "0".."3"', ["01", "0123", "33333"], ["0", "012", "45"]),
    ('start: "Hello"i /\\s+/ NAME\nNAME: /[A-Z]\\w{0,3}/', ["hELLO Bob"], ["hello bob"]),
    ('start: A\n  | "\\"q\\"\\n\\u00e9"\n  |\nA: "x" "y"', ["xy", '"q"\né', ""], ["x"]),
    ('start: /a\\/b/i', ["A/B"], ["ab"]),
    ("start: /a.b/s", ["a\nb"], ["ab"]),
    ('root ::= "[" item ("," item){0,2} "]" # list\nitem ::= [a-c]+ | [^a-c\\]]\n',
     ["[a]", "[abc,x,c]"], ["[]", "[a,b,c,a]", "[]]"]),
    ('root ::= yes-no{2} [0-9]? {1}\nyes-no ::=\n  "yes" |\n  "no"', ["yesno7", "nono1"],
     ["yes", "nonono"]),
    ('root ::= "\\x41" [\\x42-\\x44]{2,} "."*', ["ABC", "ACDB.."], ["AB", "A"])])
def test_regular_grammars(text: str, good: list[str], bad: list[str]) -> None:
    found = machine(text)
    assert [t for t in good if not accepts(found, t)] == []
    assert [t for t in bad if accepts(found, t)] == []


@pytest.mark.parametrize("text", [
    'start: "(" start? ")"', "start: a\na: b\nb: a | /x/", "%ignore /\\s+/\nstart: /a/",
    "%import common.INT\nstart: INT", "start: a", 'start: "a"\nstart: "b"', 'start: ("a"',
    'start: "a")', "start: /(?=a)b/", "start: /^a/", 'start: "ab".."c"', 'start: "\\q"', "", "x",
    'root ::= [\\d]', 'root ::= "a" | other', 'start[max_tokens=3]: "a"', 'start.2: "a"',
    'start: a{"x"}\na{p}: p', 'start: "a"~3..2', "start: " + "(" * 60 + '"a"' + ")" * 60,
    "start: a0 a0\n" + "".join(f"a{i}: a{i + 1} a{i + 1}\n" for i in range(20)) + 'a20: "x"'])
def test_the_rest_is_left_to_the_other_library(text: str) -> None:
    with pytest.raises(Unsupported):
        grammar_node(text)


def test_which_way_a_grammar_takes(merged: TableTokenizer) -> None:
    regular = grammar.compile(grammar='start: "a" /[0-9]+/', tokenizer=merged)
    assert isinstance(regular, FsmConstraint)
    assert grammar.compile(regex="a[0-9]+", tokenizer=merged).automaton is not None
    nested = grammar.compile(grammar='start: "(" start ")" | "x"', tokenizer=merged)
    assert isinstance(nested, LlguidanceConstraint)
    imported = grammar.compile(grammar="%import common.INT\nstart: INT", tokenizer=merged)
    assert isinstance(imported, LlguidanceConstraint)
    state = imported.start()
    for token in merged.encode("123"):
        state = imported.advance(state, token)
    assert imported.accepting(state)
    with pytest.raises(GrammarError) as caught:
        grammar.compile(grammar="start: missing", tokenizer=merged)
    assert caught.value.code == "SGLC011" and "missing" in str(caught.value)


def test_a_grammar_and_a_regex_of_one_language_are_one(merged: TableTokenizer) -> None:
    one = grammar.compile(grammar='start: "foo" | "bar"', tokenizer=merged)
    assert grammar.compile(choices=["bar", "foo"], tokenizer=merged) is one
    assert re.fullmatch("foo|bar", one.longest_text() or "")
