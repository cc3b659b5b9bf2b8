"""JSON schemas as our own automata: by keyword, and against a validator."""

from __future__ import annotations

import datetime
import json
import random
import re
import uuid
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from regexes import accepts
from schemas import Schemas, Values, closed, written
from toy_tokenizers import TableTokenizer
from walks import examples, random_text, walk

import sglc.grammar as grammar
from sglc.errors import GrammarError
from sglc.grammar.automaton import Automaton
from sglc.grammar.ecma import parse_ecma
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.json_numbers import Range, integers, numbers
from sglc.grammar.json_schema import schema_node
from sglc.grammar.json_shapes import Unsupported
from sglc.grammar.llguidance_backend import LlguidanceConstraint
from sglc.grammar.machines import difference, intersection, language
from sglc.grammar.nfa import Limits
from sglc.grammar.regex_parser import parse_regex

LIMITS = Limits()


def machine(schema: Any, separators: tuple[str, str] = (", ", ": ")) -> Automaton:
    return Automaton(schema_node(schema, separators, LIMITS), LIMITS)


def obj(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict:
    return {"type": "object", "properties": properties, "required": required or [], **more}


NULL = {"type": "null"}


@pytest.mark.parametrize(("schema", "good", "bad"), [
    ({"type": "integer"}, ["0", "-12"], ["01", "1.0", "", "+1"]),
    ({"type": "number"}, ["0", "-1.50", "1e5", "2.5E-07"], ["1.", ".5", "1e"]),
    ({"type": "integer", "minimum": -3, "exclusiveMaximum": 12}, ["-3", "0", "11"],
     ["-4", "12", "-0", "111"]),
    ({"type": "integer", "multipleOf": 7, "minimum": 0}, ["0", "7", "700"], ["1", "8", "-7"]),
    ({"type": "number", "minimum": 0, "maximum": 1}, ["0", "1", "0.5", "1.0", "1e-05"],
     ["1.01", "-0.5", "2"]),
    ({"type": "number", "exclusiveMinimum": 0}, ["0.1", "3", "1e-7", "1e+20"], ["0", "0.0", "-1"]),
    ({"type": "number", "multipleOf": 5, "maximum": 20}, ["20", "-5"], ["21", "25", "2.5"]),
    ({"type": "integer", "format": "int32"}, ["2147483647", "-2147483648"],
     ["2147483648", "-2147483649"]),
    ({"type": ["null", "boolean"]}, ["null", "true"], ["None", "1"]),
    ({"type": "string"}, ['""', '"é\\n\\u00e9\\ud83d\\ude00/"'], ['"\\ud83d"', '"\n"', "'a'"]),
    ({"type": "string", "minLength": 2, "maxLength": 2}, ['"ab"', '"\\ud83d\\ude00b"'],
     ['"a"', '"abc"', '"\\ud83d\\ude00"']),
    ({"type": "string", "pattern": "^a+$", "maxLength": 3}, ['"a"', '"aaa"'], ['"aaaa"', '""']),
    ({"type": "string", "pattern": "b"}, ['"b"', '"abc"', '"\\\\b\\n"'], ['"a"', '"\\b"']),
    ({"type": "string", "pattern": '^["\\\\\\n]$'}, ['"\\""', '"\\\\"', '"\\n"', '"\\u000A"'],
     ['"""', '"\\u0041"']),
    ({"type": "string", "not": {"enum": ["a", "b"]}}, ['"c"', '"ab"', '""'], ['"a"', '"b"']),
    ({"not": {"type": ["object", "array", "string", "number"]}}, ["null", "true"], ["1", '""']),
    ({"const": {"a": [1, None]}}, ['{"a": [1, null]}'], ['{"a":[1,null]}']),
    ({"enum": ["a.b", 1, "x"], "type": "string"}, ['"a.b"', '"x"'], ["1", '"axb"']),
    ({"enum": [True, 1, 2.5], "type": "number", "maximum": 2}, ["1"], ["true", "2.5"]),
    ({"enum": ["aa", "b", "ccc"], "pattern": "^(a|c)", "maxLength": 2}, ['"aa"'], ['"b"', '"ccc"']),
    ({"type": "array", "items": NULL}, ["[]", "[null]", "[null, null]"], ["[,]", "[null,]"]),
    ({"type": "array", "items": NULL, "minItems": 2, "maxItems": 3},
     ["[null, null]", "[null, null, null]"], ["[]", "[null]", "[null, null, null, null]"]),
    ({"type": "array", "items": NULL, "minItems": 2}, ["[null, null]", "[null, null, null]"],
     ["[null]"]),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[null]"]),
    ({"type": "array", "prefixItems": [NULL, {"const": 1}], "minItems": 1},
     ["[null]", "[null, 1]"], ["[]", "[1]", "[null, 1, 1]"]),
    ({"type": "array", "prefixItems": [NULL], "items": {"const": 1}}, ["[]", "[null, 1, 1]"],
     ["[1]", "[null, null]"]),
    ({"type": "array", "prefixItems": [NULL], "items": False}, ["[]", "[null]"], ["[null, 1]"]),
    ({"type": "array", "items": {"enum": [1, "a"]}, "uniqueItems": True},
     ["[]", "[1]", '["a", 1]', '[1, "a"]'], ["[1, 1]", '["a", 1, "a"]']),
    (obj({"a": NULL, "b": NULL}),
     ["{}", '{"a": null}', '{"b": null}', '{"a": null, "b": null}'],
     ['{"b": null, "a": null}', '{"a": null, }', '{, "b": null}', '{"c": 1}']),
    (obj({"a": NULL, "b": NULL}, ["b"]), ['{"b": null}', '{"a": null, "b": null}'],
     ["{}", '{"a": null}']),
    (obj({"a": NULL, "b": NULL, "c": NULL}, minProperties=1, maxProperties=2),
     ['{"a": null}', '{"b": null, "c": null}'], ["{}", '{"a": null, "b": null, "c": null}']),
    (obj({"a": NULL, "b": NULL}, dependentRequired={"a": ["b"]}),
     ["{}", '{"b": null}', '{"a": null, "b": null}'], ['{"a": null}']),
    (obj({}), ["{}"], ['{"a": 1}']),
    (obj({"a": False, "b": NULL}), ["{}", '{"b": null}'], ['{"a": null}']),
    ({"type": "object", "additionalProperties": NULL}, ["{}", '{"x": null, "\\n": null}'],
     ['{"x": 1}', "{x: null}"]),
    (obj({"a": NULL}, additionalProperties={"const": 1}),
     ['{"a": null, "b": 1, "aa": 1}', '{"b": 1}'], ['{"a": 1}', '{"b": 1, "a": 1}', '{"b": null}']),
    ({"type": "object", "additionalProperties": NULL, "propertyNames": {"pattern": "^x"}},
     ['{"x": null, "xy": null}'], ['{"y": null}']),
    ({"type": "object", "additionalProperties": NULL, "propertyNames": {"enum": ["p", "q"]}},
     ['{"q": null}'], ['{"r": null}']),
    ({"allOf": [obj({"a": NULL}, ["a"]), obj({"b": NULL}, ["b"])]}, ['{"a": null, "b": null}'],
     ['{"a": null}', '{"b": null, "a": null}']),
    ({"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 4}, {"multipleOf": 2}]},
     ["2", "4"], ["3", "6"]),
    ({"anyOf": [NULL, {"$ref": "#/$defs/i"}], "$defs": {"i": {"type": "integer"}}}, ["null", "7"],
     ["true"]),
    ({"$ref": "#/$defs/i", "maximum": 3, "$defs": {"i": {"type": "integer"}}}, ["3"], ["4"]),
    ({"$ref": "#here", "$defs": {"i": {"$anchor": "here", "type": "null"}}}, ["null"], ["1"]),
    ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ['"a"', "1"], ["1.5"]),
    ({"oneOf": [obj({"k": {"const": 1}, "v": NULL}, ["k"]), obj({"k": {"const": 2}}, ["k"])]},
     ['{"k": 1, "v": null}', '{"k": 2}'], ['{"k": 2, "v": null}', "{}"]),
    # Neither requires the member that tells them apart: then it is required.
    ({"oneOf": [obj({"k": {"const": 1}}), obj({"k": {"const": 2}})]}, ['{"k": 1}', '{"k": 2}'],
     ["{}"]),
    ({"properties": {"a": NULL}, "required": ["a"]}, ['{"a": null}'], ["1", "null"]),
    ({"title": "x", "description": "y", "x-more": 1, "type": "null"}, ["null"], ["1"])])
def test_keywords(schema: dict, good: list[str], bad: list[str]) -> None:
    found = machine(schema)
    assert [t for t in good if not accepts(found, t)] == []
    assert [t for t in bad if accepts(found, t)] == []


@pytest.mark.parametrize(("name", "good", "bad"), [
    ("date", ["2024-02-29", "2000-02-29", "0001-01-01"],
     ["2023-02-29", "1900-02-29", "2024-04-31", "0000-01-01"]),
    ("time", ["23:59:59Z", "00:00:00.5+14:00"], ["24:00:00Z", "10:00:00", "10:60:00Z"]),
    ("date-time", ["2024-02-29T00:00:00Z"], ["2024-02-30T00:00:00Z", "2024-02-29"]),
    ("duration", ["P1Y2M3D", "PT36H", "P1W", "P1DT1M"], ["P", "PT", "P1H", "1D"]),
    ("email", ["a.b+c@x-y.example.org"], ["a@b", "a..b@c.de", "@c.de", "a@c.1"]),
    ("hostname", ["localhost", "a-b.example.com"], ["-a", "a-", "a..b", "a_b"]),
    ("ipv4", ["0.0.0.0", "255.249.199.1"], ["256.0.0.0", "1.2.3", "01.2.3.4", "1.2.3.4.5"]),
    ("ipv6", ["::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1::3:4"],
     [":", ":::", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::"]),
    ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
    ("uri", ["https://a.org:80/x?y=%20#z", "mailto:a@b.c"], ["//a.org", "a b:c", "http://[", "x"]),
    ("json-pointer", ["", "/a/~0~1/0"], ["a", "/~2"])])
def test_formats(name: str, good: list[str], bad: list[str]) -> None:
    found = machine({"type": "string", "format": name})
    assert [t for t in good if not accepts(found, json.dumps(t))] == []
    assert [t for t in bad if accepts(found, json.dumps(t))] == []


def test_separators(merged: TableTokenizer) -> None:
    schema = obj({"a": {"const": [1, {"b": 2}]}, "c": {"type": "array", "items": NULL}})
    tight = machine(schema, (",", ":"))
    assert accepts(tight, '{"a":[1,{"b":2}],"c":[null,null]}')
    assert not accepts(tight, '{"a": [1,{"b":2}]}')
    ours = grammar.compile(json_schema=schema, tokenizer=merged, separators=(",", ":"))
    assert ours is not grammar.compile(json_schema=schema, tokenizer=merged)
    lines = grammar.compile(json_schema={"type": "array", "items": {}}, tokenizer=merged,
                            separators=(",\n", ":"))
    assert isinstance(lines, LlguidanceConstraint)
    text = walk(lines, merged, random.Random(1), 30)
    assert text.count(",") <= text.count(",\n") + sum(map(len, re.findall('"[^"]*"', text)))
    for bad in ((";", ":"), (",", ""), ("x,", ":"), (",", "::")):
        with pytest.raises(GrammarError, match="separators"):
            grammar.compile(json_schema=NULL, tokenizer=merged, separators=bad)


@pytest.mark.parametrize(("schema", "word"), [
    ({"type": "array", "items": NULL, "contains": NULL}, "contains"),
    ({"if": NULL}, "if"), ({"$dynamicRef": "#x"}, "$dynamicRef"),
    ({"type": "object", "unevaluatedProperties": NULL}, "unevaluatedProperties"),
    ({"not": {"minimum": 3}}, "not"), ({"type": "string", "format": "regex"}, "regex"),
    ({"type": "string", "pattern": "(?=a)b"}, "pattern"), ({"type": "thing"}, "thing"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
    ({"$ref": "#/$defs/no"}, "names nothing"), ({"$ref": "http://x/y"}, "http://x/y"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ({"minLenght": 3, "type": "string"}, "minLenght"), ({"minimum": "3"}, "minimum"),
    ({"anyOf": []}, "anyOf"), ({"type": "string", "minLength": -1}, "minLength")])
def test_what_nothing_enforces_is_refused_by_keyword(merged: TableTokenizer, schema: dict,
                                                     word: str) -> None:
    with pytest.raises(GrammarError) as caught:
        grammar.compile(json_schema=schema, tokenizer=merged)
    assert caught.value.code == "SGLC011"
    assert word in str(caught.value)


TREE = {"$ref": "#/$defs/t", "$defs": {"t": obj(
    {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, ["v"])}}


def test_recursion_goes_to_the_other_library(merged: TableTokenizer) -> None:
    with pytest.raises(Unsupported, match="recursive"):
        machine(TREE)
    constraint = grammar.compile(json_schema=TREE, tokenizer=merged)
    assert isinstance(constraint, LlguidanceConstraint)
    for text, good in [('{"v": 1}', True), ('{"v": 1, "kids": [{"v": 2}]}', True),
                       ('{"v": 1, "more": 2}', False), ('{"kids": []}', False)]:
        state: Any = constraint.start()
        for token in merged.encode(text):
            state = None if state is None else constraint.advance(state, token)
        assert (state is not None and constraint.accepting(state)) == good


def test_a_schema_without_values_is_refused(merged: TableTokenizer) -> None:
    for schema in (False, {"type": "integer", "minimum": 3, "maximum": 2}, {"enum": []},
                   obj({"a": {"allOf": [{"type": "null"}, {"type": "string"}]}}, ["a"])):
        with pytest.raises(GrammarError) as caught:
            grammar.compile(json_schema=schema, tokenizer=merged)
        assert caught.value.code == "SGLC505"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Model(BaseModel):
    id: uuid.UUID
    when: datetime.date
    pet: Cat | Dog = Field(discriminator="kind")
    tags: set[Literal["a", "b"]]
    note: str | None = None
    place: tuple[int, str]
    counts: dict[str, int]
    name: str = Field(pattern=r"^[A-Z][a-z]+$", max_length=10)
    share: float = Field(gt=0, le=1)
    even: int = Field(multiple_of=2, ge=0)


@dataclass
class Point:
    x: int
    y: int


def test_models_are_regular_and_parse(merged: TableTokenizer) -> None:
    constraint = grammar.compile(json_schema=Model, tokenizer=merged)
    assert isinstance(constraint, FsmConstraint)
    parse = grammar.value_parser(Model)
    for seed in range(10):
        value = parse(random_text(constraint.automaton, random.Random(seed)))
        assert isinstance(value, Model) and 0 < value.share <= 1
    value = Model(id=uuid.uuid4(), when=datetime.date(2024, 2, 29), pet=Dog(name="Rex"),
                  tags={"a"}, place=(1, "x"), counts={"n": 2}, name="Ada", share=0.25, even=4)
    text = json.dumps(value.model_dump(mode="json"), ensure_ascii=False)
    assert accepts(constraint.automaton, text) and parse(text) == value


def test_other_types_parse(merged: TableTokenizer) -> None:
    assert grammar.value_parser(list[Point])('[{"x": 1, "y": 2}]') == [Point(1, 2)]
    assert grammar.value_parser({"type": "integer"})("3") == 3
    constraint = grammar.compile(json_schema=list[Point], tokenizer=merged)
    assert accepts(constraint.automaton, '[{"x": 1, "y": 2}, {"x": 0, "y": -1}]')
    with pytest.raises(ValueError):
        grammar.value_parser(Cat)('{"lives": "many"}')
    for bad in (3, object()):
        with pytest.raises(GrammarError):
            grammar.value_parser(bad)
        with pytest.raises(GrammarError):
            grammar.compile(json_schema=bad, tokenizer=merged)


BOUNDS = st.one_of(st.none(), st.integers(-30, 30), st.sampled_from(
    [0.1, -0.25, 1e-7, 12.5, 1000.75, 2**53 + 1, -0.3]))


@settings(max_examples=examples(60))
@given(BOUNDS, BOUNDS, st.booleans(), st.booleans(), st.data())
def test_ranges(low: float | None, high: float | None, low_open: bool, high_open: bool,
                data: st.DataObject) -> None:
    within = Range(None if low is None else Fraction(low), None if high is None else Fraction(high),
                   low_open, high_open)
    whole = Automaton(integers(within, None, LIMITS), LIMITS)
    any_number = Automaton(numbers(within, LIMITS), LIMITS)
    near = [b for b in (low, high, 0) if b is not None]
    tiny = any(0 < abs(b) <= 1e-4 for b in near)
    for _ in range(8):
        value = data.draw(st.sampled_from(near)) + data.draw(st.one_of(
            st.integers(-3, 3), st.sampled_from([0.5, 0.01, -0.1, 1e-3])))
        text = json.dumps(value)
        found = accepts(any_number, text)
        # With an exponent a number is taken where none of its kind is out of range.
        assert found == within.holds(Fraction(value)) or (tiny and "e" in text and not found), text
        if isinstance(value, int):
            assert accepts(whole, text) == within.holds(Fraction(value)), text
    for seed in range(3):
        if any_number.rows:
            text = random_text(any_number, random.Random(seed), 20)
            assert within.holds(Fraction(json.loads(text))) or abs(json.loads(text)) > 1e300, text


@settings(max_examples=examples(40))
@given(st.sampled_from(["^[ab]{1,3}$", "a.b", "^(a|b)*abb", "b$|^a", "^[^b]*$", "a|^$"]),
       st.sampled_from(["^.{2,4}$", "^a", "b", "^(ab)*$", "[^a]"]),
       st.lists(st.text("abc\n", max_size=5), max_size=8))
def test_intersection_and_difference(one: str, two: str, subjects: list[str]) -> None:
    both = language(intersection(parse_ecma(one), parse_ecma(two), LIMITS), LIMITS)
    only = language(difference(parse_ecma(one), parse_ecma(two), LIMITS), LIMITS)
    js = [re.compile(p.replace("$", r"\Z")) for p in (one, two)]
    for text in subjects:
        first, second = (bool(p.search(text)) for p in js)
        assert both.holds(text) == (first and second)
        assert only.holds(text) == (first and not second)


@pytest.mark.parametrize(("pattern", "good", "bad"), [
    (r"^\d$", ["5"], ["٣", "5\n"]), (r"^\D$", ["a", "\n"], ["5", "٣"]), (r"^\w$", ["a"], ["é"]),
    (r"^[^\w]$", ["-"], ["a", "é"]), (r"^\s$", ["\u00a0", " "], ["\ufeff", "\x1c"]),
    (r"^\S$", ["a"], ["\ufeff", "\x1c", " "]), ("^.$", ["a"], ["\r", "\u2028"]),
    (r"^\/$", ["/"], []),
    ("^(?<n>a)(?P<m>b)$", ["ab"], []), (r"^[\d\-x]$", ["-", "x"], ["a"])])
def test_patterns_mean_what_all_readers_take_them_for(pattern: str, good: list[str],
                                                      bad: list[str]) -> None:
    found = language(parse_ecma(pattern), LIMITS)
    assert [t for t in good if not found.holds(t)] == []
    assert [t for t in bad if found.holds(t)] == []


@pytest.mark.parametrize("pattern", [
    "(?i)a", "(?#x)a", "a{,3}", "[]a]", "[^]]", r"\A", r"\cA", r"\p{L}", r"\u{41}", r"\1", r"\01",
    r"a\b", "(?=a)", "(?<=a)", "(?<!a)", "a++", "(", "[", "*"])
def test_patterns_that_readers_disagree_on_are_refused(pattern: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_ecma(pattern)
    assert caught.value.code == "SGLC006"


def test_plain_regexes_make_languages() -> None:
    found = language(parse_regex("a[bc]?"), LIMITS)
    assert found.holds("ab") and not found.holds("abc") and not found.holds("")
    assert not language(parse_regex("a^"), LIMITS).holds("a")


def check(seeds: range, tokenizer: TableTokenizer) -> tuple[int, int, int]:
    """(fitting values, those of them refused, values that do not fit) over generated schemas;
    asserts that nothing is accepted that does not fit."""
    jsonschema = pytest.importorskip("jsonschema")
    kind = jsonschema.Draft202012Validator
    fitting = refused = others = 0
    for seed in seeds:
        source = Schemas(seed)
        schema = source.schema()
        valid = kind(schema, format_checker=kind.FORMAT_CHECKER).is_valid
        in_form = kind(closed(schema), format_checker=kind.FORMAT_CHECKER).is_valid
        try:
            constraint = grammar.compile(json_schema=schema, tokenizer=tokenizer)
        except GrammarError as error:
            assert error.code in ("SGLC505", "SGLC011"), error
            continue
        values = Values(schema, source.rng)
        samples = [values.fitting(schema) for _ in range(10)]
        for value in [*samples, *map(values.changed, samples)]:
            text = written(value)
            found = read(constraint, tokenizer, text)
            good = valid(json.loads(text))
            assert good or not found, (schema, text)
            others += not good
            if good and in_form(json.loads(text)):
                fitting += 1
                refused += not found
        if isinstance(constraint, FsmConstraint):
            for i in range(4):
                text = random_text(constraint.automaton, random.Random(i))
                assert valid(json.loads(text)), (schema, text)
    return fitting, refused, others


def read(constraint: grammar.Constraint, tokenizer: TableTokenizer, text: str) -> bool:
    if isinstance(constraint, FsmConstraint):
        return accepts(constraint.automaton, text)
    state = constraint.start()
    for token in tokenizer.encode(text):
        state = constraint.advance(state, token)
        if state is None:
            return False
    return constraint.accepting(state)


def test_generated_schemas_against_a_validator(merged: TableTokenizer) -> None:
    fitting, refused, others = check(range(50), merged)
    assert fitting > 300 and others > 300
    assert refused <= fitting / 100


@pytest.mark.slow
def test_many_generated_schemas_against_a_validator(merged: TableTokenizer) -> None:
    fitting, refused, others = check(range(1000, 1400), merged)
    assert fitting > 2400 and others > 2400
    assert refused <= fitting / 100


def test_unknown_keywords_in_generated_schemas(merged: TableTokenizer) -> None:
    source = Schemas(3)
    for _ in range(12):
        keyword, schema = source.refused()
        with pytest.raises(GrammarError) as caught:
            grammar.compile(json_schema=schema, tokenizer=merged)
        assert caught.value.code == "SGLC011" and keyword in str(caught.value)
