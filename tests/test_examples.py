"""Every file of `examples/`: both modes agree, on the hash model and on a real one."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc.lang import eager_run
from tests.ties import Recorder, assert_equal_up_to_ties, outcome

FOLDER = Path(__file__).parent.parent / "examples"
GREEDY = {"temperature": 0, "seed": 7, "max_new_tokens": 16}
QUESTIONS = ["What is the capital of the United Kingdom?", "What is the capital of France?",
             "What is the capital of Japan?"]


@dataclass(frozen=True)
class Example:
    """A program of an example file and one row of arguments, or several for a batch."""

    program: str
    rows: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    variables: tuple[str, ...] = ()


EXAMPLES = {
    "multi_turn_question": Example("multi_turn_question", [
        {"question_1": "What is the capital of France?",
         "question_2": "And of Italy? Answer with one word."}], ("answer_1", "answer_2")),
    "tool_use": Example("tool_use", [{"question": "What is 12 times 17?"}], ("tool",)),
    "tip_suggestion": Example("tip_suggestion", variables=("summary",)),
    "regular_expression_gen": Example("regular_expression_gen", variables=("answer",)),
    "character_gen": Example("character_gen", [{"name": "Hermione Granger"}], ("json_output",)),
    "json_decode": Example("wizard_gen", [{"place": "the mountains"}], ("wizard", "story")),
    "text_qa_batch": Example("text_qa", [{"question": q} for q in QUESTIONS], ("answer",)),
    "text_qa_stream": Example("text_qa", [{"question": QUESTIONS[1]}], ("answer",)),
}


def load(name: str) -> Any:
    """The example's program."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, EXAMPLES[name].program)


def start(program: Any, rows: list[dict[str, Any]], **options: Any) -> list[Any]:
    if len(rows) == 1:
        return [program.run(**rows[0], **options)]
    states: list[Any] = program.run_batch(rows, **options)
    return states


def test_every_file_is_tested() -> None:
    assert {p.stem for p in FOLDER.glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_is_captured_whole(name: str) -> None:
    example, program = EXAMPLES[name], load(name)
    assert program.compile().graph_breaks == 0
    assert program.compile(**example.rows[0]).graph_breaks == 0


@pytest.mark.parametrize("tokenizer", [None, "small"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_modes_agree_on_the_hash_model(name: str, tokenizer: str | None,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    example, program = EXAMPLES[name], load(name)
    with sgl.HashModel(tokenizer) as model:
        for temperature in (0, 1):
            options = {"backend": model, "seed": 11, "temperature": temperature}
            eager = start(program, example.rows, mode="eager", **options)
            expected = [outcome(s) for s in eager]
            with monkeypatch.context() as patch:
                patch.setattr(eager_run, "execute", _not_here)
                compiled = start(program, example.rows, mode="compiled", **options)
                assert [outcome(s) for s in compiled] == expected
                assert [s.messages() for s in compiled] == [s.messages() for s in eager]
            for state in compiled:
                assert state.error() is None
                assert set(example.variables) <= set(state.variable_names())


def _not_here(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a compiled run came to the eager interpreter")


@pytest.mark.parametrize("name", EXAMPLES)
def test_modes_agree_on_a_real_model(name: str, engine: Any) -> None:
    """Both at once: what else runs in the engine makes no difference either."""
    example, program = EXAMPLES[name], load(name)
    ours, theirs = Recorder(engine), Recorder(engine)
    compiled = start(program, example.rows, backend=ours, mode="compiled", **GREEDY)
    eager = start(program, example.rows, backend=theirs, mode="eager", **GREEDY)
    for a, b in zip(compiled, eager, strict=True):
        assert a.error() is None
        assert_equal_up_to_ties(ours, theirs, a, b)
        for variable in example.variables:
            assert a[variable]


@pytest.mark.parametrize("mode", ["compiled", "eager"])
def test_streaming(mode: str, engine: Any) -> None:
    program, row = load("text_qa_stream"), EXAMPLES["text_qa_stream"].rows[0]
    state = program.run(**row, backend=engine, mode=mode, stream=True, **GREEDY)
    pieces = list(state.text_iter())
    assert len(pieces) > 2
    assert "".join(pieces) == state.text() == program.run(
        **row, backend=engine, mode=mode, **GREEDY).text()
    assert "Paris" in state["answer"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs_as_a_script(name: str, capsys: pytest.CaptureFixture[str],
                          restore_default: Callable[[Any], None]) -> None:
    with sgl.HashModel() as model:
        restore_default(model)
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.fixture
def restore_default() -> Any:
    """Sets the default backend until the end of the test."""
    yield sgl.set_default_backend
    sgl.set_default_backend(None)
