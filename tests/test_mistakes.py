"""What a newcomer does wrong: an error that names it, where it is, and what to write instead."""

from __future__ import annotations

import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc import cli


@sgl.program
def ask(s: Any, question: str) -> None:
    s += "Q: " + question + "\nA:" + sgl.gen("answer", max_tokens=2)


@sgl.program
def in_an_f_string(s: Any) -> None:
    s += f"Answer: {sgl.gen('answer')}"


@sgl.program
def in_a_percent_string(s: Any) -> None:
    s += "Answer: %s" % sgl.gen("answer")  # noqa: UP031


@sgl.program
def not_appended(s: Any) -> None:
    s + "Answer:"


@sgl.program
def forks_by_name(s: Any) -> None:
    s += "Q"
    forks = s.fork(2)
    forks += "A" + sgl.gen("answer", max_tokens=2)
    s += forks["answer"]


@sgl.program
def nested(s: Any) -> None:
    s += sgl.user(sgl.assistant("x"))


@sgl.program
def bad_regex(s: Any) -> None:
    s += "A: " + sgl.gen("a", regex="[0-9")


@sgl.program
def one_choice_text(s: Any) -> None:
    s += "A: " + sgl.select("a", "yes")


@sgl.program
def nothing(s: Any) -> None:
    s += print("")


MISTAKES: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "gen in an f-string": (lambda m: in_an_f_string.run(backend=m).text(), "SGLC002",
                           r'f-string(.|\n)*\^(.|\n)*Fix 1: s \+= f"Answer: " \+ gen'),
    "gen in %": (lambda m: in_a_percent_string.run(backend=m).text(), "SGLC002", "no text"),
    "eager as well": (lambda m: in_an_f_string.run(backend=m, mode="eager").text(), "SGLC002",
                      "f-string"),
    "s + instead of s +=": (lambda m: not_appended.run(backend=m).text(), "SGLC002",
                            r"Fix 1: write s \+="),
    "a fork's variable": (lambda m: forks_by_name.run(backend=m).text(), "SGLC003",
                          r"Fix 1: name the state: forks\[0\]\['answer'\]"),
    "a role in a role": (lambda m: nested.run(backend=m).text(), "SGLC007",
                         "an assistant message is opened inside a user message"),
    "a bad regex": (lambda m: bad_regex.run(backend=m).text(), "SGLC006",
                    r"unterminated character set(.|\n)*test_mistakes\.py"),
    "choices as text": (lambda m: one_choice_text.run(backend=m).text(), "SGLC005",
                        r'\["yes", "no"\]'),
    "nothing appended": (lambda m: nothing.run(backend=m).text(), "SGLC002",
                         "None(.|\n)*returns its text"),
    "an argument's name": (lambda m: ask.run(questoin="x", backend=m), "SGLC001",
                           "no argument 'questoin', did you mean question?"),
    "an option's name": (lambda m: ask.run("x", temprature=0, backend=m), "SGLC001",
                         "did you mean temperature?"),
    "a row's names": (lambda m: ask.run_batch([{"q": "x"}], backend=m), "SGLC001",
                      r"no argument 'q'.*\(row 0\)(.|\n)*it takes: question"),
    "a gen's option": (lambda m: sgl.gen("a", max_token=3), "SGLC008", "did you mean max_tokens?"),
    "a name for a backend": (lambda m: ask.run("x", backend="gpt-4"), "SGLC010", r"sglc\.OpenAI"),
    "a chat template": (lambda m: sgl.HashModel(chat_template="lama-3"), "SGLC311",
                        "'lama-3'(.|\n)*known are"),
    "a missing model": (lambda m: sgl.Engine("models/llama.gguf"), "SGLC504",
                        "there is no model at 'models/llama.gguf'\n"),
    "too long a prompt": (lambda m: ask.run("x" * 5000, backend=m).text(), "SGLC502",
                          "raise kv_tokens"),
    "too little for a schema": (lambda m: small_schema(m), "SGLC508", "raise max_tokens"),
}


def small_schema(model: Any) -> Any:
    from pydantic import BaseModel

    class Pet(BaseModel):
        name: str

    @sgl.program
    def pet(s: Any) -> None:
        s += "A pet: " + sgl.gen("pet", schema=Pet, max_tokens=5)

    return pet.run(backend=model)["pet"]


@pytest.fixture(scope="module")
def model() -> Any:
    with sgl.HashModel(kv_tokens=512) as backend:
        yield backend


@pytest.mark.parametrize("name", MISTAKES)
def test_what_it_says(name: str, model: Any) -> None:
    act, code, words = MISTAKES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sgl.SglcError, match=words) as caught:
            act(model)
    assert caught.value.code == code


def test_an_expression_can_be_looked_at() -> None:
    assert "answer" in repr(sgl.gen("answer") + "x")
    with pytest.raises(sgl.SglcError, match="SGLC002"):
        str("x" + sgl.gen("answer"))


def test_a_name_that_is_not_there() -> None:
    done = subprocess.run([sys.executable, "-c", "import sglc; sglc.selct"], capture_output=True,
                          text=True, cwd=Path(__file__).parent.parent)
    assert "no attribute 'selct'" in done.stderr
    assert "Did you mean: 'select'" in done.stderr


def test_a_remark_is_about_a_line_of_the_user(model: Any) -> None:
    unnamed = sgl.program(lambda s: None)
    with pytest.warns(sgl.SglcWarning, match="SGLC114") as seen:
        unnamed.run(backend=model).sync()
    assert seen[0].filename == __file__


# -- at the command line ----------------------------------------------------------------------
@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text("import sglc as sgl\n\n\n@sgl.program\ndef ask(s, question):\n"
                    '    s += "Q: " + question + sgl.gen("answer", max_tokens=2)\n')
    return path


@pytest.mark.filterwarnings("ignore::sglc.errors.SglcWarning")
def test_an_error_of_the_script_is_shown_where_it_is(
        script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(script), "--model", "hash", "--arg"]
    assert cli.main([*command, "question=one"]) == 0
    capsys.readouterr()
    assert cli.main([*command, "question=1"]) == 1
    said = capsys.readouterr().err
    assert "the program raises TypeError" in said and "mine.py:6:" in said
    assert "Traceback" not in said


def test_a_flag_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--prot", "3"])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "did you mean --port?" in said[0] and "--help" in said[1]


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["serve", "--model-path", "hash", "--port",
                         str(taken.getsockname()[1])]) == 1
    said = capsys.readouterr().err
    assert "cannot listen on 127.0.0.1" in said and "choose another --port" in said
