from __future__ import annotations

import json
import random
import re
from enum import Enum
from typing import Literal

import pytest
from pydantic import BaseModel, Field
from toy_tokenizers import TableTokenizer
from walks import walk

import sglc.grammar as grammar
from sglc.errors import GrammarError


class House(str, Enum):
    lion = "Gryffindor"
    snake = 'Sly"therin'


class Wand(BaseModel):
    wood: str = Field(min_length=1, max_length=5)
    length: float


class Character(BaseModel):
    name: str
    house: House
    age: int
    alive: bool
    blood: Literal["pure", "half"] = "half"
    wand: Wand | None = None
    friends: list[str] = Field(max_length=3)


CHARACTER = {"name": "H\n\"é\\", "house": 'Sly"therin', "age": -3, "alive": True, "blood": "pure",
             "wand": {"wood": "ash", "length": 1.5e10}, "friends": ["a", "b"]}


def test_a_model_accepts_its_json_and_nothing_else() -> None:
    match = re.compile(grammar.build_regex_from_object(Character)).fullmatch
    assert match(json.dumps(CHARACTER, ensure_ascii=False))
    assert match(json.dumps(CHARACTER))
    optional = {k: v for k, v in CHARACTER.items() if k not in ("blood", "wand")}
    assert match(json.dumps(optional, ensure_ascii=False))
    for change in ({"age": 1.5}, {"house": "Hufflepuff"}, {"alive": None}, {"friends": [1]},
                   {"friends": list("abcd")}, {"wand": {"wood": "", "length": 1}},
                   {"wand": {"wood": "toolong", "length": 1}}, {"more": 1}):
        assert not match(json.dumps(CHARACTER | change)), change
    assert not match(json.dumps({k: v for k, v in CHARACTER.items() if k != "name"}))
    assert not match('{"name": "\\ud800"')


def test_what_it_writes_validates(merged: TableTokenizer) -> None:
    pattern = grammar.build_regex_from_object(Character)
    constraint = grammar.compile(regex=pattern, tokenizer=merged)
    for seed in range(2):
        Character.model_validate_json(walk(constraint, merged, random.Random(seed), 150))


@pytest.mark.parametrize(("schema", "good", "bad"), [
    ({"type": "integer"}, ["0", "-12"], ["01", "1.0", ""]),
    ({"type": ["null", "boolean"]}, ["null", "true"], ["None", "1"]),
    ({"const": {"a": [1, None]}}, ['{"a": [1, null]}'], ['{"a":[1,null]}']),
    ({"enum": ["a.b", 1, "x"], "type": "string"}, ['"a.b"', '"x"'], ["1", '"axb"']),
    ({"enum": [True, 1, 2.5], "type": "number"}, ["1", "2.5"], ["true"]),
    ({"type": "array", "items": {"type": "null"}}, ["[]", "[null]", "[null, null]"], ["[,]"]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3},
     ["[null, null]", "[null, null, null]"], ["[]", "[null]", "[null, null, null, null]"]),
    ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, ["[]"], ["[null]"]),
    ({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
     ["{}", '{"a": null}', '{"b": null}', '{"a": null, "b": null}'], ['{"b": null, "a": null}']),
    ({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
      "required": ["b"]}, ['{"b": null}', '{"a": null, "b": null}'], ["{}", '{"a": null}']),
    ({"type": "object", "properties": {}, "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    ({"type": "string", "minLength": 2, "maxLength": 2}, [r'"a\n"', r'"\ud83d\ude00b"', '"é漢"'],
     ['"a"', '"abc"', r'"\ud83d\ude00"', '"\n\n"']),
    ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/i"}], "$defs": {"i": {"type": "integer"}}},
     ["null", "7"], ["true"])])
def test_keywords(schema: dict, good: list[str], bad: list[str]) -> None:
    match = re.compile(grammar.build_regex_from_object(json.dumps(schema))).fullmatch
    assert [t for t in good if not match(t)] == []
    assert [t for t in bad if match(t)] == []


@pytest.mark.parametrize(("schema", "word"), [
    ({"type": "string", "pattern": "a"}, "pattern"),
    ({"type": "string", "format": "date"}, "format"),
    ({"type": "integer", "minimum": 0}, "minimum"), ({"oneOf": []}, "type"), ({}, "type"),
    ({"type": "object"}, "additionalProperties"), ({"type": "array"}, "items"),
    ({"type": "object", "properties": {"a": {"type": "null"}},
      "additionalProperties": {"type": "null"}}, "additionalProperties"),
    ({"$ref": "#"}, "recursive"), ({"$ref": "#/$defs/no"}, "names nothing"),
    ({"$ref": "http://x"}, "not within"), ({"type": "thing"}, "thing"),
    ({"const": 1, "minimum": 0}, "minimum"), ({"enum": [1], "type": "string"}, "enum"),
    ({"type": ["string", "null"], "minimum": 1}, "minimum"), ({"anyOf": []}, "anyOf"),
    ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}, "required"),
    (True, "type"), (3, "int"), ("{", "not JSON"),
    ({"properties": {"a": {"type": "null"}}}, "type")])
def test_the_rest_is_refused_by_keyword(schema: object, word: str) -> None:
    with pytest.raises(GrammarError) as caught:
        grammar.build_regex_from_object(schema)
    assert caught.value.code == "SGLC011"
    assert word in str(caught.value)
