"""Written programs run and say what the programs they were made from say."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import random
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import sglc
from sglc import ir
from sglc.errors import IRError
from sglc.ir.to_python import to_python
from sglc.passes import PassManager
from tests.corpus.test_corpus import PROGRAMS
from tests.generators import GeneratedProgram, load, programs
from tests.test_examples import READMES, example

COUNT = itertools.count()
EXAMPLES = 1000 if settings().max_examples >= 1000 else 25
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
@pytest.mark.parametrize("name", [n for n in READMES if n != "json_decode"])  # calls Python
def test_examples(name: str, passes: str, model: Any, tmp_path: Path) -> None:
    case, program = example(name)
    temperature = 0 if passes else 1
    assert same(program, case.rows, model, tmp_path, passes, temperature=temperature) == len(
        case.rows)


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


def test_the_corpus_can_be_written() -> None:
    """Also programs that call Python of their own: by name."""
    rng = random.Random(1)
    count = 0
    for spec, _ in PROGRAMS.values():
        compiled = spec.program.compile(**spec.arguments(rng))
        if compiled.stages:
            ast.parse(to_python(compiled.stages["traced"]))
            count += 1
    assert count > 80


TOOL = '''\
program @tool(%question: !text) returns ("tool", "word", "z", "x") {  // tool.py:12:1
  %p0 = prompt.root
  %p1 = prompt.role_begin %p0 {history = [], role = "user"}
  %t0 = prompt.format %question {parts = ["About ", [0, "", ""], "."]}
  %p2 = prompt.append %p1, %t0
  %p3 = prompt.role_end %p2 {history = [], role = "user"}
  prompt.message %p1, %p2 {role = "user"}
  %p4, %tool: !choice<"a", "b">, %s0 = prompt.select %p3, "a", "b" {name = "tool", path = [0]}
  prompt.bind %tool {name = "tool"}
  prompt.meta %s0 {name = "tool"}
  %b0: !bool = prompt.compute %tool, "a" {fn = "eq"}
  %p5: !prompt = prompt.if %b0 then {
    %p6, %word: !text, %m0 = prompt.gen %p4 {max_tokens = 4, name = "word", path = [1]}
    prompt.bind %word {name = "word"}
    prompt.yield %p6
  } else {
    prompt.yield %p4
  }
  %p7 = prompt.append %p5, "left "
  %p8, %x: !text, %m1 = prompt.gen %p7 {name = "x", path = [0, 0, 0]}
  %p9 = prompt.append %p5, "right"
  %t1 = prompt.span %p5, %p9
  prompt.bind %t1 {name = "z"}
  prompt.bind %x {name = "x"}
  %p10 = prompt.concat %p9, %p8, %p5
  prompt.return %p10, %tool
}
'''


def test_what_is_written() -> None:
    assert to_python(ir.parse(TOOL)) == '''\
import sglc as sgl


# tool.py:12
@sgl.program
def tool(s, question):
    s += sgl.user(f"About {question}.")
    s += sgl.select("tool", ["a", "b"])
    if s["tool"] == "a":
        s += sgl.gen("word", max_tokens=4)
    forks = s.fork(1)
    forks[0] += "left " + sgl.gen("x")
    with s.var_scope("z"):
        s += "right"
    s["x"] = forks[0]["x"]
    forks.join("concate_and_append")
    return s["tool"]
'''


def test_forks_at_one_point_stay_apart(model: Any, tmp_path: Path) -> None:
    @sglc.program
    def twice(s: Any) -> None:
        s += "p"
        first = s.fork(2)
        first += sglc.gen("a", max_tokens=3)
        second = s.fork(2)
        second += sglc.gen("b", max_tokens=3)
        s += first[1]["a"] + second[1]["b"]

    assert same(twice, [{}], model, tmp_path, temperature=1) == 1


def test_reads_are_written(model: Any, tmp_path: Path) -> None:
    """A program that fails where it reads fails there when it is written, too."""
    def failing(s: Any, q: str) -> None:
        forks = s.fork(2)
        forks[0] += q
        forks += sglc.gen("a", max_tokens=2)
        s += q
        forks[0]["a"]
        forks.join()
        s += "never"

    module = sglc.program(failing).trace("x")
    source = to_python(module)
    assert '    forks[0]["a"]\n' in source and "    forks[1].sync()\n" in source
    (state,) = the_program(written(module, tmp_path)).run_batch([("x",)], backend=model, seed=1)
    assert state.error() is not None and state.text() == "x"


@pytest.mark.parametrize(("body", "what"), [
    ("%p0 = kv.root\n  prompt.return %p0", "kv.root"),
    ('%p0 = prompt.root\n  %p1 = prompt.append %p0, "a"\n  %p2 = prompt.append %p0, "b"\n'
     "  %p3 = prompt.join %p1, %p0, %p2 {mode = \"concate_and_append\"}\n  prompt.return %p3",
     "a join of prompts that are not one fork's"),
])
def test_what_cannot_be_written(body: str, what: str) -> None:
    with pytest.raises(IRError, match=what) as caught:
        to_python(ir.parse(f"program @f() {{\n  {body}\n}}\n"))
    assert caught.value.code == "SGLC008"
