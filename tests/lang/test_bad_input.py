"""Bad input gives one clear error, at once or at the first read, and the engine serves on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sglc as sgl
from sglc.errors import (
    ArgumentError,
    EngineError,
    LanguageError,
    ModelError,
    SglcError,
    UnknownVariable,
)

MODES = ("eager", "compiled")


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel(context_length=64, kv_tokens=512) as m:
        yield m


@sgl.program
def good(s: Any, q: Any) -> None:
    s += "Q: " + q + sgl.gen("a", max_tokens=4)


@pytest.fixture(autouse=True)
def served_afterwards(model: Any) -> Iterator[None]:
    """After every test the engine runs the next program, promptly."""
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 5
    state = good.run("x", backend=model, seed=1)
    assert isinstance(state["a"], str)
    model.core.check()


def fails(kind: type[SglcError], code: str, run: Callable[[], Any]) -> SglcError:
    with pytest.raises(kind) as e:
        run()
    assert e.value.code == code
    assert str(e.value).startswith(code)
    return e.value


@pytest.mark.parametrize("mode", MODES)
def test_arguments(model: Any, mode: str) -> None:
    def run(*args: Any, **kwargs: Any) -> Any:
        return good.run(*args, backend=model, mode=mode, **kwargs)

    e = fails(ArgumentError, "SGLC001", lambda: run("x", nothing=1))
    assert "nothing" in str(e) and "test_bad_input.py" in str(e)
    fails(ArgumentError, "SGLC001", lambda: run())
    fails(ArgumentError, "SGLC001", lambda: run("x", "y"))
    fails(ArgumentError, "SGLC001",
          lambda: good.run_batch([{"q": "x"}, {"p": "y"}], backend=model, mode=mode))
    fails(ArgumentError, "SGLC001", lambda: good.run_batch(["x"], backend=model, mode=mode))
    fails(ArgumentError, "SGLC001",
          lambda: good.run_batch([{"q": "x"}], backend=model, mode=mode, tmperature=1))
    assert good.run_batch([], backend=model, mode=mode) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", [None, 5, 1.5, ["x"], object()])
def test_what_cannot_be_appended(model: Any, mode: str, part: Any) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x"
        s += part

    e = fails(LanguageError, "SGLC002", lambda: program.run(backend=model, mode=mode))
    assert "Fix 1" in str(e)


@pytest.mark.parametrize("mode", MODES)
def test_a_number_argument_is_not_text(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any, n: int) -> None:
        s += n

    fails(LanguageError, "SGLC002", lambda: program.run(5, backend=model, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_choices(model: Any, mode: str) -> None:
    for choices in ([], "yes", ["a", ""], ["a", "a"], [1, 2], None, 5):
        @sgl.program
        def program(s: Any, choices: Any = choices) -> None:
            s += "x" + sgl.select("c", choices=choices)

        fails(LanguageError, "SGLC005", lambda p=program: p.run(backend=model, mode=mode)["c"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("parameters", "code"), [
    ({"regex": "("}, "SGLC006"), ({"regex": 5}, "SGLC006"), ({"stop_regex": "["}, "SGLC006"),
    ({"max_tokens": -1}, "SGLC004"), ({"max_tokens": "5"}, "SGLC004"),
    ({"temperature": -0.1}, "SGLC004"), ({"top_p": 0}, "SGLC004"), ({"top_p": 1.1}, "SGLC004"),
    ({"top_k": 0}, "SGLC004"), ({"top_k": -2}, "SGLC004"), ({"n": 0}, "SGLC004"),
    ({"frequency_penalty": 3}, "SGLC004"), ({"presence_penalty": -3}, "SGLC004"),
    ({"stop": ""}, "SGLC004"), ({"stop": 5}, "SGLC004"), ({"stop": ["a", 5]}, "SGLC004"),
    ({"stop_token_ids": [-1]}, "SGLC004"), ({"ignore_eos": 1}, "SGLC004"),
    ({"dtype": dict}, "SGLC004"), ({"dtype": int, "regex": "a"}, "SGLC004"),
    ({"nonsense": 1}, "SGLC008"), ({"temperature": float("nan")}, "SGLC004"),
    ({"skip_special_tokens": False}, "SGLC008"),
])
def test_gen_parameters(model: Any, mode: str, parameters: dict[str, Any], code: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", **parameters)

    fails(LanguageError, code, lambda: program.run(backend=model, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_run_options(model: Any, mode: str) -> None:
    for options in ({"max_new_tokens": -1}, {"temperature": "hot"}, {"seed": 1.5},
                    {"mode": "fast"}):
        fails(LanguageError, "SGLC004", lambda o=options: good.run(
            "x", backend=model, **{"mode": mode, **o}))
    fails(LanguageError, "SGLC010", lambda: good.run("x", backend="http://localhost", mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_regex_that_no_constraint_can_be(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", regex=r"(a|b)\1", max_tokens=4)

    e = fails(SglcError, "SGLC006", lambda: program.run(backend=model, mode=mode)["a"])
    assert "position" in str(e) or "back-reference" in str(e)


@pytest.mark.parametrize("mode", MODES)
def test_roles(model: Any, mode: str) -> None:
    @sgl.program
    def nested(s: Any) -> None:
        s += sgl.user("a" + sgl.assistant("b"))

    @sgl.program
    def unopened(s: Any) -> None:
        s += "a" + sgl.user_end()

    @sgl.program
    def scopes(s: Any) -> None:
        with s.user():
            with s.assistant():
                s += "x"

    for program in (nested, unopened, scopes):
        fails(LanguageError, "SGLC007", lambda p=program: p.run(backend=model, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_a_variable_never_produced(model: Any, mode: str) -> None:
    state = good.run("x", backend=model, mode=mode)
    e = fails(UnknownVariable, "SGLC003", lambda: state["b"])
    assert "'a'" in str(e) and isinstance(e, KeyError)
    assert state.get_meta_info("b") is None

    @sgl.program
    def reads(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=1)
        s += s["b"]

    fails(UnknownVariable, "SGLC003", lambda: reads.run(backend=model, mode=mode))
    rows = reads.run_batch([{}, {}], backend=model, mode=mode)
    assert [type(r.error()) for r in rows] == [UnknownVariable] * 2


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_longer_than_the_context(model: Any, mode: str) -> None:
    state = good.run("x" * 100, backend=model, mode=mode)
    fails(EngineError, "SGLC501", lambda: state["a"])
    fails(EngineError, "SGLC501", lambda: state.text())
    assert isinstance(state.error(), EngineError)
    rows = good.run_batch([{"q": "x"}, {"q": "y" * 100}, {"q": "z"}], backend=model, mode=mode)
    assert [r.error() is None for r in rows] == [True, False, True]
    assert all(isinstance(r["a"], str) for r in (rows[0], rows[2]))


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_larger_than_the_pool(mode: str) -> None:
    with sgl.HashModel(kv_tokens=32) as model:
        state = good.run("x" * 60, backend=model, mode=mode)
        fails(EngineError, "SGLC502", lambda: state["a"])
        assert isinstance(good.run("x", backend=model, mode=mode)["a"], str)


@pytest.mark.parametrize("mode", MODES)
def test_a_gen_on_nothing(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += sgl.gen("a", max_tokens=4)

    state = program.run(backend=model, mode=mode)
    fails(SglcError, "SGLC507", lambda: state["a"])


@pytest.mark.parametrize("mode", MODES)
def test_the_body_raises(model: Any, mode: str) -> None:
    @sgl.program
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"), warnings.catch_warnings(record=True):
        program.run(backend=model, mode=mode)  # `raise` breaks the graph, with a warning
    rows = program.run_batch([{}], backend=model, mode=mode)
    assert isinstance(rows[0].error(), ZeroDivisionError)
    assert isinstance(rows[0]["a"], str)  # the state keeps what came before


def test_what_is_not_a_program() -> None:
    fails(LanguageError, "SGLC009", lambda: sgl.program(5))

    def nothing() -> None: ...

    fails(LanguageError, "SGLC009", lambda: sgl.program(nothing))


@pytest.mark.parametrize("name", ["video", "separate_reasoning"])
def test_refused_by_name(name: str) -> None:
    e = fails(LanguageError, "SGLC008", lambda: getattr(sgl, name)("x"))
    assert name in str(e)


def test_a_path_that_is_no_model(tmp_path: Any) -> None:
    start = time.perf_counter()
    fails(ModelError, "SGLC504", lambda: sgl.Engine(tmp_path / "none.gguf"))
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 100)
    fails(ModelError, "SGLC504", lambda: sgl.Engine(bad))
    fails(ModelError, "SGLC504", lambda: sgl.Engine(tmp_path))
    assert time.perf_counter() - start < 10  # torch is imported meanwhile
