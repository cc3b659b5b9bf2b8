from __future__ import annotations

import json
import random
import re
import sys

import pytest
from pydantic import BaseModel
from toy_tokenizers import TableTokenizer
from walks import allowed, walk

import sglc.grammar as grammar
from sglc.errors import GrammarError
from sglc.grammar.llguidance_backend import LlguidanceConstraint, from_regex
from sglc.grammar.nfa import Limits
from sglc.grammar.regex_parser import parse_regex
from sglc.grammar.render import to_regex

ARITHMETIC = """start: expr
expr: term (("+" | "-") term)*
term: /[0-9]{1,3}/ | "(" expr ")"
"""
LIST = """root ::= "[" items "]"
items ::= "x" ("," items)?
"""


class Wand(BaseModel):
    wood: str
    length: float


class Character(BaseModel):
    name: str
    age: int
    wand: Wand | None
    friends: list[str]


def read(constraint: grammar.Constraint, tokenizer: TableTokenizer, text: str) -> object | None:
    state = constraint.start()
    for token in tokenizer.encode(text):
        mask = allowed(constraint, state, tokenizer.vocab_size)
        after = constraint.advance(state, token)
        assert (after is not None) == (token in mask)
        if after is None:
            return None
        state = after
    return state


def test_json_schema_of_a_model(merged: TableTokenizer) -> None:
    constraint = grammar.compile(json_schema=Character, tokenizer=merged)
    good = Character(name="Harry", age=17, wand=Wand(wood="Holly", length=11.5), friends=["Ron"])
    state = read(constraint, merged, json.dumps(good.model_dump()))
    assert state is not None and constraint.accepting(state)
    assert constraint.advance(state, min(merged.eos_ids)) == state
    for text in ('{"name": 1', '{"age"', '{"name": "x", "age": 1.5', '{ '):
        assert read(constraint, merged, text) is None
    assert constraint.max_tokens() is None


def test_recursive_schema_walks(merged: TableTokenizer) -> None:
    schema = {"$defs": {"t": {"type": "object", "properties": {
        "v": {"enum": [1, "two"]}, "kids": {"type": "array", "items": {"$ref": "#/$defs/t"},
                                            "maxItems": 2}},
        "required": ["v", "kids"], "additionalProperties": False}}, "$ref": "#/$defs/t"}
    constraint = grammar.compile(json_schema=schema, tokenizer=merged)
    for seed in range(3):
        value = json.loads(walk(constraint, merged, random.Random(seed), 40))
        assert value["v"] in (1, "two") and len(value["kids"]) <= 2


@pytest.mark.parametrize(("text", "good"), [
    ("1+(23-4)", True), ("((7))", True), ("(1", False), ("1++", None), ("1234", None)])
def test_lark_grammar(merged: TableTokenizer, text: str, good: bool | None) -> None:
    constraint = grammar.compile(grammar=ARITHMETIC, tokenizer=merged)
    state = read(constraint, merged, text)
    assert (None if state is None else constraint.accepting(state)) == good


def test_ebnf_grammar(merged: TableTokenizer) -> None:
    constraint = grammar.compile(grammar=LIST, tokenizer=merged)
    for seed in range(3):
        assert re.fullmatch(r"\[x(,x)*\]", walk(constraint, merged, random.Random(seed), 20))


@pytest.mark.parametrize("pattern", [
    "abc(d|e)?", r"(?:true|false|tea), [a-f]{2,4}", "[éê漢]+x?", r"Gryffindor|Gryff", "(a|b)*abb",
    r'\{"a": (?:-?[0-9]{1,3}|null|" x")\}', "x( the| a| 漢){2}"])
def test_masks_equal_those_of_our_own_automaton(merged: TableTokenizer, pattern: str) -> None:
    """Also where bytes are forced, where llguidance itself allows one token only."""
    ours = grammar.compile(regex=pattern, tokenizer=merged)
    theirs = from_regex(to_regex(parse_regex(pattern)), merged, "test", "a test")
    rng = random.Random(pattern)
    for _ in range(4):
        mine, other = ours.start(), theirs.start()
        for _ in range(12):
            found = allowed(ours, mine, merged.vocab_size)
            assert found == allowed(theirs, other, merged.vocab_size)
            assert ours.accepting(mine) == theirs.accepting(other)
            assert ours.jump(mine).startswith(theirs.jump(other))
            options = sorted(found - merged.eos_ids)
            if not options:
                break
            token = rng.choice(options)
            mine, other = ours.advance(mine, token), theirs.advance(other, token)


def test_states_are_values(merged: TableTokenizer) -> None:
    constraint = grammar.compile(grammar=ARITHMETIC, tokenizer=merged)
    one, two = merged.id_of[b"1"], merged.id_of[b"2"]
    start = constraint.start()
    a, b = constraint.advance(start, one), constraint.advance(start, one)
    assert a == b and hash(a) == hash(b) and a != constraint.advance(start, two)
    before = constraint.mask(start).tobytes()
    assert constraint.advance(constraint.advance(a, two), two) is not None
    assert constraint.mask(start).tobytes() == before
    assert constraint.mask(a).tobytes() == constraint.mask(b).tobytes()
    assert constraint.advance(start, min(merged.eos_ids)) is None
    assert constraint.advance(start, max(merged.special_ids)) is None
    assert constraint.advance(start, -1) is None


def test_texts_that_begin_alike_are_read_once(merged: TableTokenizer) -> None:
    """As long as there is room; what is in use stays what it was when there is none."""
    constraint = grammar.compile(grammar=ARITHMETIC, tokenizer=merged)
    assert isinstance(constraint, LlguidanceConstraint)
    ids = merged.encode("1+(23-4)*")[:-1]

    def states() -> list[object]:
        out = [constraint.start()]
        for token in ids:
            out.append(constraint.advance(out[-1], token))
        return out

    first = states()
    masks = [constraint.mask(s).tobytes() for s in first]
    assert all(a is b for a, b in zip(first, states(), strict=True))
    constraint._most = 3
    again = states()
    assert all(a is b for a, b in zip(first, again, strict=True))  # nothing new, all there
    other = constraint.advance(first[0], merged.id_of[b"7"])
    assert other is not None and constraint._kept <= 3
    fresh = states()
    assert fresh[1] is not first[1]
    assert masks == [constraint.mask(s).tobytes() for s in fresh]
    assert masks == [constraint.mask(s).tobytes() for s in first]


@pytest.mark.parametrize(("schema", "word"), [
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "string", "x-guidance": {"lenient": True}, "contains": 3}, "contains"),
    ({"not": {"type": "string"}}, "not")])
def test_what_cannot_be_enforced_is_refused(merged: TableTokenizer, schema: dict,
                                            word: str) -> None:
    with pytest.raises(GrammarError) as caught:
        grammar.compile(json_schema=schema, tokenizer=merged)
    assert caught.value.code == "SGLC011"
    assert word in str(caught.value)


@pytest.mark.parametrize("text", ["start: b", "start: /(?=a)/", "nonsense", "root ::= ("])
def test_bad_grammars(merged: TableTokenizer, text: str) -> None:
    with pytest.raises(GrammarError) as caught:
        grammar.compile(grammar=text, tokenizer=merged)
    assert caught.value.code == "SGLC011"


def test_too_large_an_automaton_is_handed_over(merged: TableTokenizer) -> None:
    pattern = r"(.|\n)*(foo|bar)(\w|é){0,9}qux"
    limits = Limits(raw_states=100)
    constraint = grammar.compile(regex=pattern, tokenizer=merged, limits=limits)
    assert isinstance(constraint, LlguidanceConstraint)
    for text in ("foo\nbar12équx", "quxfoo", "漢foo_qux", "foo qux"):
        state = read(constraint, merged, text)
        assert constraint.accepting(state) == bool(re.fullmatch(pattern, text))
    with pytest.raises(GrammarError) as caught:
        grammar.compile(regex=f"^{pattern}", tokenizer=merged, limits=limits)
    assert caught.value.code == "SGLC006"


def test_without_the_library(bytes_only: TableTokenizer,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(GrammarError, match="pip install llguidance"):
        grammar.compile(json_schema={}, tokenizer=bytes_only)
