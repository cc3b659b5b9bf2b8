"""Hostile programs: an answer within seconds, with file and line, or a correct run."""

from __future__ import annotations

import random
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc.cli import main
from sglc.errors import SglcError, SglcWarning, TraceError
from tests.footguns.hostile import effects, endless, functions, size, values
from tests.footguns.hostile.cases import CASES, Case
from tests.round_trips import ROUND_TRIPS

SECONDS = 5.0  # of this thread, to compile
RUN_SECONDS = 20.0
FILES = [str(module.__file__) for module in (effects, endless, functions, size, values)]


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel(kv_tokens=1 << 20, context_length=1 << 19) as m:
        yield m


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """What programs change outside is as before, for every case."""
    state = random.getstate()
    yield
    random.setstate(state)
    effects.LEAKED.clear()
    effects.OTHER.clear()


def outcome(run: Any) -> Any:
    """What a run gives, or the error that it raises."""
    try:
        state = run()
        error = state.error()
        if error is not None:
            return error
        returned = "<state>" if state.ret_value is state else state.ret_value
        return (state.text(), state.token_ids(), repr(returned)[:200],
                {n: state[n] for n in state.variable_names()})
    except BaseException as e:
        return e


def same(a: Any, b: Any) -> bool:
    if isinstance(a, BaseException) or isinstance(b, BaseException):
        return type(a) is type(b) and getattr(a, "code", None) == getattr(b, "code", None)
    return bool(a == b)


def is_wanted(error: Any, wanted: Any) -> bool:
    options = wanted if isinstance(wanted, tuple) else (wanted,)
    return any(error.code == o if isinstance(o, str) and isinstance(error, SglcError)
               else isinstance(o, type) and isinstance(error, o) for o in options)


def says_where(message: Any) -> bool:
    """Whether it names a line of the program (one that was executed has no file)."""
    return any(f"--> {file}:" in str(message) for file in (*FILES, "<string>"))


@sgl.program
def other_program(s: Any) -> None:
    s += "another run's"


class Timed:
    """Fails if the block takes too long (of this thread: others may be busy).  What the checks of
    modules take is not counted."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.start = time.thread_time() - ROUND_TRIPS.seconds

    def __exit__(self, *args: Any) -> None:
        took = time.thread_time() - ROUND_TRIPS.seconds - self.start
        assert took < self.seconds, f"took {took:.1f} s"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_hostile_program(case: Case, model: Any) -> None:
    if case.outcome == "refused":
        with pytest.raises(SglcError) as refused:
            sgl.program(case.fn)
        assert is_wanted(refused.value, case.error) and says_where(refused.value)
        return
    program = sgl.program(case.fn)

    def run(**options: Any) -> Any:
        if case.name == "a_leaked_state_is_used":
            effects.OTHER[:] = [other_program.run(backend=model, seed=1)]
        return outcome(lambda: program.run(*case.arguments, backend=model, seed=3, **options))

    with Timed():
        compiled = program.compile(*case.arguments)
    for found in compiled.breaks:
        assert says_where(found), found
    if case.outcome == "endless":
        assert compiled.graph_breaks
        assert compiled.breaks[0].code in ("SGLC120", "SGLC110"), compiled.breaks[0]
        return
    with Timed():
        try:
            program.trace(*case.arguments)
        except TraceError as e:
            assert compiled.graph_breaks and says_where(e)
    with Timed(RUN_SECONDS):
        eager = run(mode="eager")
    with warnings.catch_warnings(record=True) as said, Timed(RUN_SECONDS):
        warnings.simplefilter("always")
        got = run()
    for warning in said:
        if isinstance(warning.message, SglcWarning):
            assert says_where(warning.message), warning.message
    assert same(eager, got), (eager, got)
    if case.outcome == "ok":
        assert not isinstance(got, BaseException), "".join(traceback.format_exception(got))
    else:
        for error in (eager, got):
            assert is_wanted(error, case.error), repr(error)
            if isinstance(error, SglcError):
                assert says_where(error), error


SCRIPTS = {
    "an error at import": ("import sglc as sgl\n\nx = 1 / 0\n", 3),
    "an exit at import": ("import sys\nsys.exit(3)\n", 2),
    "no Python": ("def f(:\n", 1),
    "a bad import": ("import no_such_module_anywhere\n", 1),
    "a generator": ("import sglc as sgl\n\n\n@sgl.program\ndef f(s):\n    yield 1\n", 4),
    "no state": ("import sglc as sgl\n\n\n@sgl.program\ndef f():\n    pass\n", 4),
    "null bytes": ("x = '\0'\n", 0),
    "recursion at import": ("def f():\n    f()\n\n\nf()\n", 2),
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_hostile_script(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, line = SCRIPTS[what]
    path = tmp_path / "script.py"
    path.write_text(source, encoding="utf-8")
    with Timed():
        assert main(["compile", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("SGLC009 ") and "Traceback" not in said
    assert not line or f"--> {path}:{line}:" in said, said


def test_endless_programs_compile_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Timed():
        assert main(["compile", f"{endless.__file__}:first_of_two"]) == 0
    assert "first_of_two" in capsys.readouterr().out
