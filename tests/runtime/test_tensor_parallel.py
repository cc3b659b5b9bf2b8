"""A model spread over processes gives what it gives in one; and when a process ends, the others
notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import sglc
from sglc.errors import EngineError, ModelError, SglcError
from sglc.runtime.cuda import load
from sglc.runtime.cuda.load import load_device_runner, step_tokens
from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import load_runner
from sglc.runtime.parallel.opening import open_device_parallel, open_parallel
from sglc.runtime.parallel.team import Team
from tests.runtime.common import TOKENIZER, Pending, ask, request
from tests.runtime.processes import NOTICE_SECONDS, gone
from tests.runtime.test_families import CASES, save_random

ROOT = Path(sglc.__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- processes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2() -> Iterator[sglc.Engine]:
    with sglc.Engine(tp=2, kv_tokens=4096) as spread:
        yield spread


def prompts() -> list[Any]:
    text = "The quick brown fox jumps over the lazy dog. "
    return [request(text[:9 + 5 * i] + str(i % 3), max_tokens=6 + 3 * i, temperature=0.0,
                    ignore_eos=True) for i in range(3)] + [
        request(text, max_tokens=8, temperature=0.8, top_p=0.9, key=7),
        request(text * 2, "score", score_from=30)]


def the_same(spread: EngineCore, whole: EngineCore) -> None:
    for _ in range(2):  # the second time from the cache
        for a, b in zip(ask(spread, prompts()), ask(whole, prompts()), strict=True):
            assert a.error is None and b.error is None
            assert (a.ids, a.text) == (b.ids, b.text)
            assert [p for p in a.logprobs or () if p] == pytest.approx(
                [p for p in b.logprobs or () if p], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_same_text(tmp_path: Path, name: str) -> None:
    save_random(tmp_path, name)
    runner, _ = open_parallel(tmp_path, 2)
    with EngineCore(runner, TOKENIZER, kv_tokens=600, max_batch_tokens=24) as spread, \
            EngineCore(load_runner(tmp_path)[0], TOKENIZER, kv_tokens=600) as whole:
        the_same(spread, whole)
        pids = runner._team.pids
    assert gone(pids)


@pytest.mark.slow
def test_three_processes(tmp_path: Path) -> None:
    save_random(tmp_path, "qwen2")
    with EngineCore(open_parallel(tmp_path, 3)[0], TOKENIZER, kv_tokens=600) as spread, \
            EngineCore(load_runner(tmp_path)[0], TOKENIZER, kv_tokens=600) as whole:
        the_same(spread, whole)


@pytest.mark.parametrize("name", [
    "llama3", "qwen2_moe", pytest.param("gemma2", marks=pytest.mark.slow),
    pytest.param("mixtral", marks=pytest.mark.slow)])
def test_the_device_runner_in_two_processes(tmp_path: Path, name: str) -> None:
    """What runs on GPUs, with the reference kernels: records, page tables, overlapping steps."""
    save_random(tmp_path, name)
    given = {"device": "cpu", "kernels": "torch", "dtype": "float32", "max_tokens": 512,
             "max_rows": 8}
    spread, _ = open_device_parallel(tmp_path, 2, **given)
    whole, _ = load_device_runner(tmp_path, **given)
    with EngineCore(spread, TOKENIZER, kv_tokens=600, max_running=8) as a, \
            EngineCore(whole, TOKENIZER, kv_tokens=600, max_running=8) as b:
        the_same(a, b)
        assert a.stats().kv_total == b.stats().kv_total


def test_smollm2_gives_the_same_text(engine: sglc.Engine, smollm2: sglc.Engine) -> None:
    asked = ["The capital of France is", "Once upon a time,"]
    sampling = {"temperature": 0.0, "max_new_tokens": 10}
    want = engine.generate(prompts=asked, sampling=sampling)
    found = smollm2.generate(prompts=asked, sampling=sampling)
    assert [r.text for r in found] == [r.text for r in want]
    assert smollm2.info()["tp"] == 2


def test_a_killed_worker_is_noticed(smollm2: sglc.Engine) -> None:
    """The last test on this engine: it is of no use afterwards."""
    (pid,) = smollm2.core.runner._team.pids
    begun = threading.Event()
    asked = [request("Once", max_tokens=2000, temperature=0.0, ignore_eos=True,
                     on_text=lambda text: begun.set()),
             *(request(f"{i} ", max_tokens=2000, temperature=0.0, ignore_eos=True)
               for i in range(3))]
    pending = Pending(smollm2.core, asked)
    assert begun.wait(20)
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    for result in pending.wait(NOTICE_SECONDS):
        assert isinstance(result.error, EngineError) and result.error.code == "SGLC503"
    assert "rank 1 ended (signal 9)" in str(result.error)
    with pytest.raises(SglcError):  # and at once from now on
        smollm2.generate(prompts=["more"], sampling={"max_new_tokens": 4})
    smollm2.close()
    assert time.monotonic() - started < NOTICE_SECONDS


SCRIPT = """
import json, sys, time
import sglc
from sglc.runtime.engine import EngineCore
from sglc.runtime.parallel.opening import open_parallel
from tests.runtime.common import TOKENIZER, ask, request

print("main")
runner, _ = open_parallel({path!r}, 2)
core = EngineCore(runner, TOKENIZER, kv_tokens=600)
found = ask(core, [request(text, max_tokens=8, temperature=0.0, ignore_eos=True)
                   for text in {texts!r}])
print(json.dumps([runner._team.pids, [list(result.ids) for result in found]]), flush=True)
time.sleep(60)
"""


def test_from_standard_input_and_without_the_parent(tmp_path: Path) -> None:
    """A script without a file and without a guard gives one process's text; killed, it leaves
    nothing behind."""
    save_random(tmp_path, "mixtral")
    texts = ["The quick", "The quick brown fox", "jumps"]
    with EngineCore(load_runner(tmp_path)[0], TOKENIZER, kv_tokens=600) as whole:
        want = ask(whole, [request(text, max_tokens=8, temperature=0.0, ignore_eos=True)
                           for text in texts])
    parent = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, cwd=ROOT,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert parent.stdin is not None and parent.stdout is not None
    try:
        parent.stdin.write(SCRIPT.format(path=str(tmp_path), texts=texts))
        parent.stdin.close()
        assert parent.stdout.readline() == "main\n"
        pids, ids = json.loads(parent.stdout.readline())
    finally:
        parent.kill()
        parent.wait()
    assert ids == [list(result.ids) for result in want]
    assert parent.stdout.read() == ""  # nothing has run the script again
    assert gone(pids)


CELL = """
import sglc
print("main")
with sglc.Engine(device="cpu", tp=2, kv_tokens=600) as engine:
    sampling = {"max_new_tokens": 8, "temperature": 0.0}
    print(engine.generate("Once upon a time", sampling=sampling).text)
"""


@pytest.mark.slow
def test_in_a_notebook(engine: sglc.Engine) -> None:
    pytest.importorskip("ipykernel", reason="there is no kernel to run a notebook in")
    notebooks = pytest.importorskip("nbformat").v4
    preprocessors = pytest.importorskip("nbconvert.preprocessors")
    book = notebooks.new_notebook(cells=[
        notebooks.new_code_cell(f"import sys; sys.path.insert(0, {str(ROOT)!r})"),
        notebooks.new_code_cell(CELL)])
    preprocessors.ExecutePreprocessor(timeout=120).preprocess(book)  # raises what a cell raises
    printed = "".join(out.text for out in book.cells[1].outputs if out.get("name") == "stdout")
    want = engine.generate("Once upon a time", sampling={"max_new_tokens": 8, "temperature": 0.0})
    assert printed == f"main\n{want.text}\n"


PROGRAM = """
import sglc

@sglc.program
def capital(s, country):
    s += "The capital of " + country + " is" + sglc.gen("city", max_tokens=6, temperature=0.0)
"""


@pytest.mark.slow
def test_the_command_line_and_runtime(engine: sglc.Engine, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prog.py").write_text(PROGRAM)
    from sglc.cli import main

    assert main(["run", str(tmp_path / "prog.py"), "--arg", "country=France", "--tp", "2"]) == 0
    (want,) = engine.generate(prompts=["The capital of France is"],
                              sampling={"temperature": 0.0, "max_new_tokens": 6})
    assert want.text.strip() in capsys.readouterr().out
    with sglc.Runtime(tp_size=2, kv_tokens=2000, log_level="error") as runtime:
        pids = runtime.backend.core.runner._team.pids
        assert len(pids) == 1 and runtime.backend.info()["tp"] == 2
        info = sglc.get_server_info(runtime.endpoint)
        assert info["stats"]["kv_total"] == 2000
    assert gone(pids)
    assert main(["run", str(tmp_path / "prog.py"), "--arg", "country=France", "--tp", "99"]) == 1
    assert "SGLC504 the model cannot be spread over 99 ranks" in capsys.readouterr().err


# -- errors --------------------------------------------------------------------------------------


def test_more_ranks_than_heads(tmp_path: Path) -> None:
    save_random(tmp_path, "qwen2")
    started = time.monotonic()
    with pytest.raises(ModelError, match="cannot be spread over 8 ranks") as caught:
        open_parallel(tmp_path, 8)
    assert "it has 4 heads, fewer than 8" in str(caught.value)
    with pytest.raises(ModelError, match="cannot be spread over 3 ranks"):
        open_device_parallel(tmp_path, 3, device="cpu", kernels="torch")
    with pytest.raises(ModelError, match="deterministic=True is not possible with tp=4"):
        open_device_parallel(tmp_path, 4, device="cpu", kernels="torch", deterministic=True)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(SglcError, match="tp must be at least 1"):
            sglc.Engine(tmp_path, tp=wrong)  # type: ignore[arg-type]
    assert time.monotonic() - started < 2


def test_more_ranks_than_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before a process is started."""
    save_random(tmp_path, "llama3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(Team, "__init__", lambda *args: pytest.fail("processes were started"))
    for device, tp, first in (("cuda:1", 2, 1), ("cuda:0", 4, 0)):
        with pytest.raises(ModelError) as caught:
            sglc.Engine(tmp_path, device=device, tp=tp)
        assert f"there are no {tp} GPUs from number {first} on" in str(caught.value)
        assert "PyTorch sees 2" in str(caught.value) and f"tp={2 - first}" in str(caught.value)
    for tp in (1, 2):
        with pytest.raises(ModelError, match="there is no GPU number 2"):
            sglc.Engine(tmp_path, device="cuda:2", tp=tp)
        for name in ("cuda:300", "cuda:" + 20 * "9", "cuda:01", "cuda:-1", "cuda:"):
            with pytest.raises(ModelError, match=f"the device '{name}' is not supported"):
                sglc.Engine(tmp_path, device=name, tp=tp)


@pytest.mark.parametrize("wide, gib, size, dtype, tokens", [
    (1, 80, 1, "auto", 16896), (1, 24, 1, "auto", 8192),
    (32, 80, 1, "auto", 8192), (32, 141, 1, "auto", 16896), (32, 141, 1, "float32", 8192),
    (70, 80, 2, "auto", 8192), (70, 80, 4, "auto", 8192), (70, 141, 2, "auto", 16896)])
def test_tokens_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: int, gib: int,
                          size: int, dtype: str, tokens: int) -> None:
    """By the GPU's processors, where weights of `wide` times 10^9 numbers leave room for so many;
    the same for all ranks."""
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 8 * 8192,
        "num_hidden_layers": round(wide * 10**9 / (28 * 8192**2)) or 1,
        "num_attention_heads": 64, "num_key_value_heads": 64, "vocab_size": 64}))
    about = SimpleNamespace(total_memory=gib * 10**9, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    here = torch.device("cuda", 1)
    given = {"dtype": dtype, "load_format": "dummy"}
    assert step_tokens(tmp_path, here, size, **given) == tokens
    assert step_tokens(tmp_path, torch.device("cpu"), size, **given) == 8192
    with pytest.raises(ModelError, match="unknown load_format 'new'"):
        step_tokens(tmp_path, here, load_format="new")
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(load, "load_device_runner", lambda path, **given: asked.append(given))
    for most in (None, 100):
        open_device_parallel(tmp_path, 1, device="cuda:1", max_tokens=most, **given)
    assert [a["max_tokens"] for a in asked] == [step_tokens(tmp_path, here, **given), 100]


@pytest.mark.slow
def test_a_worker_that_cannot_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker has to say is what the user sees."""
    save_random(tmp_path, "qwen2")
    from sglc.runtime.parallel import opening

    job = opening._job
    monkeypatch.setattr(opening, "_job", lambda path, *args, **more: job(
        path / "elsewhere", *args, **more))
    with pytest.raises(ModelError, match=r"there is no model at .*elsewhere"):
        open_parallel(tmp_path, 2)
