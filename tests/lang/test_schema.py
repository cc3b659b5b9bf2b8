"""`gen(schema=...)`: the variable is a value of the type, the prompt has its JSON text."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

import sglc as sgl
from sglc.errors import LanguageError, SchemaError, SglcError
from sglc.ir import parse
from sglc.ir import print as print_module
from sglc.ir.to_python import to_python

MODES = ("eager", "compiled")
made: list[int] = []


class Pet(BaseModel):
    name: str = Field(pattern=r"^[a-z]{1,3}$")
    kind: Literal["cat", "dog"]
    legs: list[bool] = Field(max_length=2)

    def shout(self, end: str = "!") -> str:
        return self.name.upper() + end


class Counted(BaseModel):
    size: int = Field(ge=0, le=9)

    @field_validator("size")
    @classmethod
    def count(cls, value: int) -> int:
        made.append(value)
        return value


class Even(BaseModel):
    size: int = Field(ge=0, le=9)

    @field_validator("size")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


@dataclasses.dataclass
class Point:
    x: bool
    y: bool


PET_SCHEMA = Pet.model_json_schema()


@pytest.fixture(scope="module", params=[None, "small", "smollm2"])
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    with sgl.HashModel(request.param) as m:
        yield m


@sgl.program
def describe(s: Any, q: str) -> Any:
    s += q + sgl.gen("pet", schema=Pet, max_tokens=80)
    s += " name=" + s["pet"].name
    s += f" kind={s['pet'].kind} all={s['pet']} " + s["pet"].shout(end="?")
    if s["pet"].kind == "cat":
        s += " meows " + sgl.gen("then", max_tokens=3)
    else:
        s += " barks " + s["pet"].model_dump_json()
    return s["pet"]


def both(program: Any, model: Any, **options: Any) -> tuple[Any, Any]:
    one, two = (program.run(backend=model, mode=m, **options) for m in MODES)
    assert one.text() == two.text() and one.token_ids() == two.token_ids()
    return one, two


def test_values_in_the_body_and_after(model: Any) -> None:
    kinds = set()
    for seed in range(6):
        for state in both(describe, model, q="pet: ", seed=seed):
            pet = state["pet"]
            assert type(pet) is Pet and pet is state["pet"] and pet is state.ret_value
            assert state.text().startswith(f'pet: {{"name": "{pet.name}", "kind": ')
            assert f"name={pet.name} kind={pet.kind} all={pet} {pet.name.upper()}? " in state.text()
            text = "".join(state.text_iter("pet"))
            assert Pet(**json.loads(text)) == pet and f"pet: {text} name=" in state.text()
            assert state.error() is None
            kinds.add(pet.kind)
    assert kinds == {"cat", "dog"}


@pytest.mark.parametrize("mode", MODES)
def test_batches_streams_and_async(model: Any, mode: str) -> None:
    options: dict[str, Any] = {"backend": model, "mode": mode, "seed": 3}
    rows = describe.run_batch([{"q": q} for q in ("a", "b", "c")], **options)
    assert all(type(r["pet"]) is Pet for r in rows)
    one = describe.run(q="a", **options)
    assert one["pet"] == rows[0]["pet"] and one.text() == rows[0].text()
    later = asyncio.run(describe.arun(q="a", **options))
    assert later["pet"] == one["pet"]
    streamed = describe.run(q="a", stream=True, **options)
    assert "".join(streamed.text_iter()) == one.text()
    streamed = describe.run(q="a", stream=True, **options)
    assert "".join(streamed.text_iter("pet")) == "".join(one.text_iter("pet"))
    assert streamed["pet"] == one["pet"]


def test_samples(model: Any) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "pets: " + sgl.gen("pets", schema=Pet, n=3, max_tokens=80)
        for pet in s["pets"]:
            s += "," + pet.name
        s += s["pets"][1].kind + str(len(s["pets"]))

    for state in both(program, model, seed=1):
        assert [type(p) for p in state["pets"]] == [Pet] * 3
        assert state.text().endswith(
            "".join("," + p.name for p in state["pets"]) + state["pets"][1].kind + "3")
        assert len(state.get_meta_info("pets")) == 3


def test_other_types(model: Any) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("point", schema=Point, max_tokens=60)
        s += sgl.gen("sizes", schema=list[Literal[1, 2]], max_tokens=3, stop="]", no_stop_trim=True)
        s += sgl.gen("word", schema=Literal["yes", "no"])
        s += s["word"]

    for state in both(program, model, seed=2):
        assert type(state["point"]) is Point and state["word"] in ("yes", "no")
        assert state.text().endswith(f'"{state["word"]}"{state["word"]}')


def test_schema_as_data_is_text(model: Any) -> None:
    @sgl.program
    def program(s: Any, schema: Any) -> None:
        s += "x" + sgl.gen("a", schema=PET_SCHEMA, max_tokens=80)
        s += "y" + sgl.gen("b", schema=json.dumps(PET_SCHEMA), max_tokens=80)
        s += "z" + sgl.gen("c", json_schema=PET_SCHEMA, max_tokens=80)
        s += "w" + sgl.gen("d", schema=schema, max_tokens=80) + s["a"]

    for schema in (Pet, list[Literal["a"]]):
        wanted = Pet if schema is Pet else str
        schema = schema if schema is Pet else json.dumps(PET_SCHEMA)
        for state in both(program, model, seed=1, schema=schema):
            for name in "abc":
                assert type(state[name]) is str and Pet(**json.loads(state[name]))
            assert type(state["d"]) is wanted
            assert state.text().endswith(state["a"])


@pytest.mark.parametrize("mode", MODES)
def test_the_value_is_made_once(model: Any, mode: str) -> None:
    @sgl.program
    def unread(s: Any) -> None:
        s += "n=" + sgl.gen("n", schema=Counted, max_tokens=40)

    @sgl.program
    def read(s: Any) -> None:
        s += "n=" + sgl.gen("n", schema=Counted, max_tokens=40)
        s += str(s["n"].size)
        for _ in range(s["n"].size % 3):  # the compiler learns the number at run time
            s += f"|{s['n'].size}"

    read.run(backend=model, mode=mode, seed=0).sync()  # traced
    made.clear()
    state = unread.run(backend=model, mode=mode, seed=1)
    state.sync()
    assert made == []
    assert state["n"].size == state["n"].size
    assert made == [state["n"].size]
    for seed in range(4):
        made.clear()
        state = read.run(backend=model, mode=mode, seed=seed)
        state.sync()
        assert made == [state["n"].size]
        assert state.text().count("|") == state["n"].size % 3


@pytest.mark.parametrize("mode", MODES)
def test_cut_by_max_tokens(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2) + "y" + sgl.gen("pet", schema=Pet, max_tokens=3)
        s += "z" + sgl.gen("b", max_tokens=2)

    state = program.run(backend=model, mode=mode, seed=1)
    assert state.error() is None and state.text().startswith("x" + state["a"] + "y{")
    assert state["b"] is not None
    text = "".join(state.text_iter("pet"))
    with pytest.raises(SchemaError, match="max_tokens=3") as caught:
        state["pet"]
    error = caught.value
    assert error.code == "SGLC508" and error.text == text and repr(text) in str(error)
    assert error.diagnostic.place is not None
    assert error.diagnostic.place.file == __file__ and "schema=Pet" in str(error)
    assert state.get_meta_info("pet")["finish_reason"]["type"] == "length"
    streamed = program.run(backend=model, mode=mode, seed=1, stream=True)
    assert "".join(streamed.text_iter("pet")) == text
    assert "".join(streamed.text_iter()) == state.text()


def test_cut_and_read_in_the_body(model: Any) -> None:
    after: list[str] = []

    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("pet", schema=Pet, max_tokens=3) + "y"
        after.append("before")
        pet = s["pet"]
        after.append("after")
        s += "z" + pet.name

    @sgl.program
    def caught(s: Any) -> None:
        s += "x" + sgl.gen("pet", schema=Pet, max_tokens=3)
        try:
            name = s["pet"].name
        except SchemaError as e:
            name = "none: " + e.text
        s += name

    for mode in MODES:
        after.clear()
        with pytest.raises(SchemaError, match="max_tokens=3"):
            program.run(backend=model, mode=mode, seed=1).sync()
        assert after == ["before"]
        row, = program.run_batch([{}], backend=model, mode=mode, seed=1)
        assert isinstance(row.error(), SchemaError) and row.text().endswith("y")
    for state in both(caught, model, seed=1):
        assert "none: {" in state.text()


@pytest.mark.parametrize("mode", MODES)
def test_validators_and_stops(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("even", schema=Even, max_tokens=40)
        s += "y" + sgl.gen("pet", schema=Pet, max_tokens=40, stop="name")

    odd = 0
    for seed in range(8):
        state = program.run(backend=model, mode=mode, seed=seed)
        with pytest.raises(SchemaError, match="the stop 'name' cut it"):
            state["pet"]
        try:
            assert state["even"].size % 2 == 0
        except SchemaError as e:
            odd += 1
            assert "must be even" in str(e)
    assert 0 < odd < 8


def test_forks(model: Any) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x"
        forks = s.fork(2)
        for f in forks:
            f += sgl.gen("pet", schema=Pet, max_tokens=80)
        forks.join()
        s += forks[0]["pet"].name + s["pet"][1].name
        s["first"] = forks[0]["pet"]

    for state in both(program, model, seed=4):
        assert [type(p) for p in state["pet"]] == [Pet, Pet]
        assert state["first"] is state["pet"][0]
        assert state.text() == "x" + state["pet"][0].name + state["pet"][1].name


def test_going_on_after_a_run(model: Any) -> None:
    for mode in MODES:
        state = describe.run(q="x", backend=model, mode=mode, seed=1)
        pet = state["pet"]
        state += "more " + sgl.gen("more", schema=Pet, max_tokens=80)
        assert state["pet"] is pet and type(state["more"]) is Pet


@pytest.mark.parametrize("mode", MODES)
def test_appending_a_value(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("pet", schema=Pet, max_tokens=80)
        s += s["pet"]

    with pytest.raises(LanguageError, match=r"SGLC002.*Pet") as caught:
        program.run(backend=model, mode=mode, seed=1).sync()
    assert "model_dump_json()" in str(caught.value)


def test_one_constraint() -> None:
    for other in ({"regex": "a"}, {"choices": ["a"]}, {"dtype": int}, {"ebnf": "start: \"a\""},
                  {"json_schema": "{}"}):
        with pytest.raises(LanguageError, match="one constraint") as caught:
            sgl.gen("x", schema=Pet, **other)
        assert caught.value.code == "SGLC004"


@pytest.mark.parametrize("schema", [42, Pet(name="a", kind="cat", legs=[]), [], "{"])
def test_what_is_no_schema(schema: Any) -> None:
    with sgl.HashModel() as model, pytest.raises(SglcError) as caught:
        @sgl.program
        def program(s: Any) -> None:
            s += "x" + sgl.gen("x", schema=schema)

        program.run(backend=model, mode="eager").sync()
    assert caught.value.code == "SGLC011"


def test_in_the_ir(model: Any) -> None:
    stages = describe.compile(q="x", backend=model).stages
    for module in stages.values():
        assert parse(print_module(module)) == module
    source = to_python(stages["traced"] if "traced" in stages else stages["prompt"])
    assert "sgl.gen(\"pet\", " in source and "json_schema=" in source and "reader" not in source
