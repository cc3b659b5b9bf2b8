"""Written programs run and say what the programs they were made from say."""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import sglc
from sglc.errors import IRError
from sglc.ir.to_python import to_python
from sglc.passes import PassManager
from tests.generators import GeneratedProgram, load, programs
from tests.test_examples import EXAMPLES as EXAMPLE_FILES
from tests.test_examples import load as load_example

COUNT = itertools.count()
EXAMPLES = 1000 if settings().max_examples >= 1000 else 40
FUNCTIONAL = "functionalize,fold"


@pytest.fixture(scope="module")
def model() -> Any:
    with sglc.HashModel() as model:
        yield model


def written(module: Any, directory: Path) -> ModuleType:
    """The module that the written source is, from a file of its own."""
    name = f"written_{next(COUNT)}"
    path = directory / f"{name}.py"
    path.write_text(to_python(module), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def the_program(loaded: ModuleType) -> Any:
    return next(v for v in vars(loaded).values() if isinstance(v, sglc.Program))


def seen(state: Any) -> Any:
    """What is left of a run, its variables included."""
    error = state.error()
    if error is not None:
        return type(error).__name__
    names = {str(n): n for n in state.variable_names()}
    return state.text(), state.token_ids(), state.messages(), state.ret_value, {
        n: state[names[n]] for n in sorted(names)}


def same(program: Any, rows: list[dict[str, Any]], model: Any, directory: Path,
         passes: str = "", **options: Any) -> int:
    """Check that each row's program and what is written for it agree; how many were written."""
    count = 0
    for row in rows:
        compiled = program.compile(**row)
        module = compiled.stages["traced"]
        if passes:
            module = PassManager(passes).run(module)
        try:
            again = the_program(written(module, directory))
        except IRError as e:
            assert e.code == "SGLC008"
            continue
        count += 1
        for mode in ("eager", "compiled"):
            want = program.run(**row, backend=model, mode=mode, seed=5, **options)
            got = again.run(**row, backend=model, mode=mode, seed=5, **options)
            expected, found = seen(want), seen(got)
            if isinstance(expected, tuple) and isinstance(found, tuple):
                # A gen that passes moved out of a fork is a variable now.
                assert not (found[-1].keys() - expected[-1].keys() if not passes else ())
                for name in found[-1].keys() - expected[-1].keys():
                    del found[-1][name]
            assert found == expected, to_python(module)
    return count


@pytest.mark.parametrize("passes", ["", FUNCTIONAL])
@pytest.mark.parametrize("name", EXAMPLE_FILES)
def test_examples(name: str, passes: str, model: Any, tmp_path: Path) -> None:
    rows = EXAMPLE_FILES[name].rows
    temperature = 0 if passes else 1
    program = load_example(name)
    assert same(program, rows, model, tmp_path, passes, temperature=temperature) == len(rows)


def plain(generated: GeneratedProgram) -> bool:
    """Whether the program's own Python is all in its IR."""
    return "host(" not in generated.source and "messages()" not in generated.source


def check(generated: GeneratedProgram, model: Any, directory: Path, passes: str) -> None:
    program = sglc.program(load(generated, directory).prog)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(program, [dict(r) for r in generated.rows], model, directory, passes, max_tokens=5)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=programs(max_rows=2).filter(plain))
def test_traced_programs_are_written_exactly(
        generated: GeneratedProgram, model: Any,
        tmp_path_factory: pytest.TempPathFactory) -> None:
    check(generated, model, tmp_path_factory.getbasetemp(), "")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=programs(max_rows=1, sampling=False).filter(plain))
def test_forks_are_found_again(generated: GeneratedProgram, model: Any,
                               tmp_path_factory: pytest.TempPathFactory) -> None:
    check(generated, model, tmp_path_factory.getbasetemp(), FUNCTIONAL)
