"""Every file of `examples/` runs as a script; both modes agree, on the hash model and a real one.

The notebook and the scripts for servers and remote APIs: tests/test_example_backends.py.
"""

from __future__ import annotations

import importlib.util
import re
import runpy
from collections.abc import Callable
from dataclasses import dataclass
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
    rows: list[dict[str, Any]]
    variables: tuple[str, ...] = ()


READMES = {
    "multi_turn_question": Example("multi_turn_question", [
        {"question_1": "What is the capital of France?",
         "question_2": "And of Italy? Answer with one word."}], ("answer_1", "answer_2")),
    "tool_use": Example("tool_use", [{"question": "What is 12 times 17?"}], ("tool",)),
    "tip_suggestion": Example("tip_suggestion", [{}], ("summary",)),
    "regular_expression_gen": Example("regular_expression_gen", [{}], ("answer",)),
    "character_gen": Example("character_gen", [{"name": "Hermione Granger"}], ("json_output",)),
    "json_decode": Example("wizard_gen", [{"place": "the mountains"}], ("wizard", "story")),
    "text_qa_batch": Example("text_qa", [{"question": q} for q in QUESTIONS], ("answer",)),
    "text_qa_stream": Example("text_qa", [{"question": QUESTIONS[1]}], ("answer",)),
}


# The tasks: the program, and variables of each of the rows in the file's ROWS.
TASKS = {
    "chat": ("chat", ("answer_0", "answer_2")), "extract": ("extract", ("order",)),
    "router": ("answer", ("tool", "answer")), "react": ("react", ("action", "answer")),
    "tree_of_thought": ("tree_of_thought", ("answer",)), "judge": ("judge", ("overall",)),
    "rag": ("rag", ("answer",)), "map_reduce": ("map_reduce", ("report",)),
    "self_consistency": ("solve", ()), "batch_file": ("classify", ("mood", "subject")),
    "server_client": ("capital", ("answer",)),
}
VISION = {"image_qa", "llava", "yi_vl"}  # tests/lang/test_images.py, and below
NAMES = [*READMES, *TASKS]


def load(name: str) -> Any:
    """The example's module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example(name: str) -> tuple[Example, Any]:
    """The example, and its program."""
    module = load(name)
    if name in READMES:
        found = READMES[name]
    else:
        program, variables = TASKS[name]
        found = Example(program, module.ROWS, variables)
    return found, getattr(module, found.program)


def start(program: Any, rows: list[dict[str, Any]], **options: Any) -> list[Any]:
    if len(rows) == 1:
        return [program.run(**rows[0], **options)]
    states: list[Any] = program.run_batch(rows, **options)
    return states


def test_every_file_is_tested() -> None:
    assert {p.stem for p in FOLDER.glob("*.py")} == {*NAMES, *VISION}


def test_the_table_lists_every_file() -> None:
    linked = re.findall(r"\[[\w./]+\]\(([\w./]+)\)", (FOLDER / "README.md").read_text())
    there = [str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.suffix in (".py", ".ipynb")]
    assert sorted(linked) == sorted(there)


@pytest.mark.parametrize("name", NAMES)
def test_is_captured_whole(name: str) -> None:
    case, program = example(name)
    assert program.compile().graph_breaks == 0
    assert program.compile(**case.rows[0]).graph_breaks == 0


@pytest.mark.parametrize("tokenizer", [None, "small"])
@pytest.mark.parametrize("name", NAMES)
def test_modes_agree_on_the_hash_model(name: str, tokenizer: str | None,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    case, program = example(name)
    with sgl.HashModel(tokenizer) as model:
        for temperature in (0, 1):
            options = {"backend": model, "seed": 11, "temperature": temperature}
            eager = start(program, case.rows, mode="eager", **options)
            expected = [outcome(s) for s in eager]
            with monkeypatch.context() as patch:
                patch.setattr(eager_run, "execute", _not_here)
                compiled = start(program, case.rows, mode="compiled", **options)
                assert [outcome(s) for s in compiled] == expected
                assert [s.messages() for s in compiled] == [s.messages() for s in eager]
            for state in compiled:
                assert state.error() is None
                assert set(case.variables) <= set(state.variable_names())


def _not_here(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a compiled run came to the eager interpreter")


# In the default run, the short ones.
ON_A_REAL_MODEL = [pytest.param(n, marks=() if n in READMES and n != "tip_suggestion" else (
    pytest.mark.slow,)) for n in NAMES]


@pytest.mark.parametrize("name", ON_A_REAL_MODEL)
def test_modes_agree_on_a_real_model(name: str, engine: Any) -> None:
    """Both at once: what else runs in the engine makes no difference either."""
    case, program = example(name)
    ours, theirs = Recorder(engine), Recorder(engine)
    compiled = start(program, case.rows, backend=ours, mode="compiled", **GREEDY)
    eager = start(program, case.rows, backend=theirs, mode="eager", **GREEDY)
    for a, b in zip(compiled, eager, strict=True):
        assert a.error() is None
        assert_equal_up_to_ties(ours, theirs, a, b)
        for variable in case.variables:
            assert a[variable]


@pytest.mark.parametrize("mode", ["compiled", "eager"])
def test_streaming(mode: str, engine: Any) -> None:
    case, program = example("text_qa_stream")
    row = case.rows[0]
    state = program.run(**row, backend=engine, mode=mode, stream=True, **GREEDY)
    pieces = list(state.text_iter())
    assert len(pieces) > 2
    assert "".join(pieces) == state.text() == program.run(
        **row, backend=engine, mode=mode, **GREEDY).text()
    assert "Paris" in state["answer"]


@pytest.mark.parametrize("name", READMES)
def test_runs_as_a_script(name: str, capsys: pytest.CaptureFixture[str],
                          restore_default: Callable[[Any], None]) -> None:
    with sgl.HashModel() as model:
        restore_default(model)
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_runs_without_a_model(name: str, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [name, "--hash"])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert len(said.splitlines()) >= 4
    if name == "rag":
        given, ordered, alone = (int(n.replace(",", "")) for n in (
            *re.findall(r"= ([\d,]+), of", said), re.findall(r"of = ([\d,]+)", said)[0]))
        assert ordered < given < alone
    elif name == "judge":
        expected, computed, asked = map(int, re.search(
            r"about (\d+) tokens.*was: +(\d+) of (\d+) computed", said, re.S).groups())
        assert computed < asked / 4 and abs(expected - computed) < expected / 2
    elif name != "batch_file":
        asked, computed = map(int, re.search(
            r"(\d+) tokens of .*?prompts.*?, (\d+) of them computed", said).groups())
        assert 0 < computed < asked
    if name == "server_client":
        assert "the same as here: True" in said


@pytest.mark.slow
@pytest.mark.parametrize("name, answer", [("chat", "Paris"), ("router", "204"), ("react", "777 km"),
                                          ("batch_file", "-> positive |")])
def test_a_task_on_a_real_model(name: str, answer: str, engine: Any,
                                capsys: pytest.CaptureFixture[str]) -> None:
    module = load(name)
    module.main() if name == "batch_file" else module.main(engine)
    assert answer in capsys.readouterr().out


@pytest.mark.parametrize("name", ["llava", "yi_vl"])
def test_images(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                monkeypatch: pytest.MonkeyPatch) -> None:
    """On random weights of each layout."""
    pytest.importorskip("PIL")
    pytest.importorskip("transformers")
    from tests.runtime.vision_models import as_own_layout, backend_of, draw, save_llava

    monkeypatch.setattr("sys.argv", [name])
    ran = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "MODEL IMAGE" in said and "0 graph breaks" in said
    model, image = tmp_path / "llava", str(tmp_path / "image.png")
    save_llava(model)
    draw(40, 30).save(image)
    if name == "yi_vl":
        as_own_layout(model, tmp_path / "own", max_position_embeddings=2048)
        model = tmp_path / "own"
    template = sgl.get_chat_template("yi") if name == "yi_vl" else None
    with backend_of(model, template=template) as backend:
        ran["main"](backend, image)
    said = capsys.readouterr().out
    assert "images read: 1;" in said and all(q in said for q in ran["QUESTIONS"])


@pytest.fixture
def restore_default() -> Any:
    """Sets the default backend until the end of the test."""
    yield sgl.set_default_backend
    sgl.set_default_backend(None)
