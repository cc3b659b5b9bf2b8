"""Constraints as programs ask for them: dtype, regex, JSON schema, EBNF, stops and lengths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl

MODES = ("eager", "compiled")
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "yy"]}},
          "required": ["a", "b"], "additionalProperties": False}


@pytest.fixture(scope="module", params=["bytes", "smollm2"])
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    with sgl.HashModel(None if request.param == "bytes" else request.param) as m:
        yield m


@pytest.mark.parametrize("mode", MODES)
def test_dtypes(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "n=" + sgl.gen("i", dtype=int, max_tokens=6) + ";"
        s += sgl.gen_int("j", max_tokens=6) + ";" + sgl.gen("f", dtype=float, max_tokens=6)
        s += ";" + sgl.gen("b", dtype=bool) + ";" + sgl.gen_string("s", max_tokens=30)

    for seed in range(4):
        state = program.run(backend=model, mode=mode, seed=seed)
        assert re.fullmatch(r"[-+]?\d*", state["i"]) and re.fullmatch(r"[-+]?\d*", state["j"])
        assert re.fullmatch(r"[-+]?\d*\.?\d*", state["f"])
        assert state["b"] in ("True", "False")
        assert re.match(r'"[\w\d\s]*', state["s"])


@pytest.mark.parametrize("mode", MODES)
def test_regex_json_schema_ebnf(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("r", regex=r"(ab|c){2,3}[0-9]", max_tokens=40)
        s += "y" + sgl.gen("j", json_schema=json.dumps(SCHEMA), max_tokens=80)
        s += "z" + sgl.gen("e", ebnf='start: "<" ("p"|"qq")+ ">"', max_tokens=60)

    state = program.run(backend=model, mode=mode, seed=1)
    other = program.run(backend=model, mode="eager", seed=1)
    assert state.text() == other.text()
    assert re.fullmatch(r"(ab|c){2,3}[0-9]", state["r"])
    document = json.loads(state["j"])
    assert type(document["a"]) is bool and document["b"] in ("x", "yy") and len(document) == 2
    assert re.match(r"<(p|qq)+", state["e"])


@pytest.mark.parametrize("mode", MODES)
def test_stops_and_lengths(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("none", max_tokens=0) + "y"
        s += sgl.gen("least", max_tokens=9, min_tokens=5) + "|"
        s += sgl.gen("stop", max_tokens=60, stop=["e", " "], ignore_eos=True) + "|"
        s += sgl.gen("pattern", max_tokens=60, stop_regex=r"[aeiou ]", ignore_eos=True) + "|"
        s += sgl.gen("kept", max_tokens=60, stop="e", no_stop_trim=True, ignore_eos=True)

    for seed in range(3):
        state = program.run(backend=model, mode=mode, seed=seed)
        assert state["none"] == ""
        assert state.get_meta_info("least")["completion_tokens"] >= 5
        assert not set(state["stop"]) & {"e", " "}
        assert not re.search(r"[aeiou ]", state["pattern"])
        if state.get_meta_info("kept")["finish_reason"]["type"] == "stop":
            assert "e" in state["kept"]


@pytest.mark.parametrize("mode", MODES)
def test_penalties_are_applied(model: Any, mode: str) -> None:
    def text(**options: Any) -> str:
        @sgl.program
        def p(s: Any) -> None:
            s += "x" + sgl.gen("a", max_tokens=40, ignore_eos=True, temperature=0, **options)

        return str(p.run(backend=model, mode=mode)["a"])

    plain = text()
    for options in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0},
                    {"repetition_penalty": 1.9}):
        penalised = text(**options)
        assert penalised != plain
        assert len(set(penalised)) >= len(set(plain)) - 2
