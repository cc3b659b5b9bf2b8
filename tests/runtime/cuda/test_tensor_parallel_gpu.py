"""A model on several GPUs: the ids of one GPU, by graphs and without, and what happens when a
process ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sglc
from sglc import grammar
from sglc.errors import ModelError
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.engine import EngineCore
from sglc.runtime.parallel.opening import open_device_parallel
from sglc.runtime.request import Request
from tests.runtime.common import TOKENIZER, ask, request
from tests.runtime.cuda.test_device_families import larger_sizes, save_family
from tests.runtime.cuda.test_device_runner import TINY, mixed, save_model, the_same
from tests.runtime.processes import NOTICE_SECONDS, gone

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(GPUS < 2, reason=f"needs 2 GPUs, PyTorch sees {GPUS}")]
ROOT = Path(sglc.__file__).parent.parent
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8}


def core(path: Path, tp: int, **options: Any) -> EngineCore:
    given = {"dtype": "float32", "max_tokens": 512, "max_rows": 64, **options}
    return EngineCore(open_device_parallel(path, tp, **given)[0], TOKENIZER, kv_tokens=8000,
                      max_running=64)


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
@pytest.mark.parametrize(("tp", "kv_heads"), [(2, 2), (2, 1), (4, 4), (4, 2), (8, 8)])
def test_ids_equal_those_of_one_gpu(tmp_path: Path, tp: int, kv_heads: int, graphs: bool) -> None:
    if tp > GPUS:
        pytest.skip(f"needs {tp} GPUs, PyTorch sees {GPUS}")
    save_model(tmp_path, **WIDE, num_key_value_heads=kv_heads)
    whole = EngineCore(load_device_runner(tmp_path, dtype="float32", max_tokens=512,
                                          max_rows=64)[0], TOKENIZER, kv_tokens=8000,
                       max_running=64)
    with whole, core(tmp_path, tp, graphs=graphs) as spread:
        for _ in range(2):  # the second time with everything cached
            asked = mixed()
            the_same(asked, ask(spread, asked), ask(whole, mixed()))
        for n in (1, 3, 8):  # plain requests only: steps overlap
            asked = mixed()[:n]
            the_same(asked, ask(spread, asked), ask(whole, mixed()[:n]))
        assert (spread.runner._graphs is not None) == graphs


@pytest.mark.parametrize("patience", [0.0, 1.0])
def test_constraints(tmp_path: Path, patience: float) -> None:
    """Ranks that draw nothing capture the graphs in which rank 0 does, by masks too."""
    save_model(tmp_path, **WIDE, num_key_value_heads=2)
    rules = [grammar.compile(regex=p, tokenizer=TOKENIZER) for p in (
        r"[a-f]{3,6}(, and then|; or else) [0-9]{2}", r"[a-z ]{5,30}")]

    def asked() -> list[Request]:
        return [request("and " * (i % 3) + "so", max_tokens=20 + i, key=i, temperature=i % 3 * 0.6,
                        constraint=rules[i % 2] if i % 5 else None) for i in range(13)]

    whole = EngineCore(load_device_runner(tmp_path, dtype="float32", max_tokens=512,
                                          max_rows=64)[0], TOKENIZER, kv_tokens=8000,
                       max_running=64)
    with whole, core(tmp_path, 2) as spread:
        loop = spread._loop
        loop.scheduler.patience = patience
        loop._admission.rules.uses = 1
        loop._admission.rules._aside = lambda make: make()
        for _ in range(2):
            the_same(asked(), ask(spread, asked()), ask(whole, asked()))
        assert any(shape.masked for shape in spread.runner._graphs._known)


@pytest.mark.parametrize("name", ["qwen2_moe", "mixtral", "gemma2"])
def test_families(tmp_path: Path, name: str) -> None:
    save_family(tmp_path, name, **larger_sizes(name))
    whole = EngineCore(load_device_runner(tmp_path, dtype="float32", max_tokens=512,
                                          max_rows=64)[0], TOKENIZER, kv_tokens=8000,
                       max_running=64)
    with whole, core(tmp_path, 2) as spread:
        asked = mixed()
        the_same(asked, ask(spread, asked), ask(whole, mixed()))


def test_half_precision_is_close(tmp_path: Path) -> None:
    save_model(tmp_path, **WIDE)
    text = "The quick brown fox jumps over the lazy dog. " * 3
    found = []
    for tp in (1, 2):
        with core(tmp_path, tp, dtype="bfloat16") as engine:
            (result,) = ask(engine, [request(text, "score", score_from=1)])
            assert result.error is None
            found.append(result.logprobs)
    assert [p for p in found[1] if p] == pytest.approx([p for p in found[0] if p], abs=0.1)


def test_dummy_weights_are_those_of_one_gpu(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**TINY, **WIDE}))
    texts = []
    for tp in (1, 2):
        with sglc.Engine(tmp_path, device="cuda", dtype="float32", load_format="dummy", tp=tp,
                         kv_tokens=2000) as engine:
            out = engine.generate(input_ids=[[7, 8, 9], list(range(40))], sampling={
                "temperature": 0.0, "max_new_tokens": 32, "ignore_eos": True})
            texts.append([list(result.ids) for result in out])
            assert engine.stats().kv_total == 2000
    assert texts[0] == texts[1]


def test_all_ranks_agree_on_room(tmp_path: Path) -> None:
    save_model(tmp_path, **WIDE)
    with sglc.Engine(tmp_path, device="cuda", load_format="dummy", tp=2,
                     mem_fraction=0.2) as engine:
        assert 1000 < engine.stats().kv_total
        (result,) = engine.generate(input_ids=[[1, 2, 3]], sampling={"max_new_tokens": 4,
                                                                     "ignore_eos": True})
        assert len(result.ids) == 4


def test_more_ranks_than_gpus(tmp_path: Path) -> None:
    save_model(tmp_path, hidden_size=1024, num_attention_heads=64, num_key_value_heads=64,
               intermediate_size=1024)
    with pytest.raises(ModelError, match=r"there are no \d+ GPUs"):
        sglc.Engine(tmp_path, device="cuda", tp=2 * GPUS if GPUS in (2, 4, 8, 16) else 64)


SCRIPT = """
import json, os, signal, sys, time
import torch
import sglc
from sglc.runtime.engine import EngineCore
from sglc.runtime.parallel.opening import open_device_parallel
from tests.runtime.common import TOKENIZER, Pending, request

runner, _ = open_device_parallel({path!r}, {tp}, max_tokens=512, max_rows=64)
core = EngineCore(runner, TOKENIZER, kv_tokens=8000, max_running=64)
pids = runner._team.pids
asked = [request("abc" * (1 + i), max_tokens=400, temperature=0.0, ignore_eos=True)
         for i in range(8)]
Pending(core, asked).wait(120)  # everything is compiled
pending = Pending(core, [request("abd" * (1 + i), max_tokens=400, temperature=0.0,
                                 ignore_eos=True) for i in range(8)])
time.sleep(0.1)
print(json.dumps(pids), flush=True)
if {wait}:
    time.sleep(120)
os.kill(pids[0], signal.SIGKILL)
started = time.monotonic()
results = pending.wait(30)
seconds = time.monotonic() - started
again = Pending(core, [request("more", max_tokens=4)]).wait(10)
codes = [r.error and r.error.code for r in [*results, *again]]
started = time.monotonic()
core.close()
closing = time.monotonic() - started
print(json.dumps([seconds, closing, codes, str(results[0].error)]), flush=True)
print(int(torch.ones(8, device="cuda").sum().item()), flush=True)
with sglc.Engine({path!r}, device="cuda", load_format="dummy", kv_tokens=2000) as engine:
    (result,) = engine.generate(input_ids=[[1, 2, 3]],
                                sampling={{"max_new_tokens": 4, "ignore_eos": True}})
    print(len(result.ids), flush=True)
"""


def started_script(path: Path, *, wait: bool) -> subprocess.Popen[str]:
    save_model(path, **WIDE, num_key_value_heads=4)
    env = {k: v for k, v in os.environ.items() if k != "NCCL_DEBUG"}  # it would write to stdout
    script = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, cwd=ROOT,
                              env={**env, "PYTHONPATH": str(ROOT)})
    assert script.stdin is not None
    script.stdin.write(SCRIPT.format(path=str(path), wait=wait, tp=4 if GPUS >= 4 else 2))
    script.stdin.close()
    return script


def test_a_killed_worker_is_noticed(tmp_path: Path) -> None:
    """All requests end with an error within 5 s, and the process can go on using its GPU."""
    script = started_script(tmp_path, wait=False)
    assert script.stdout is not None
    try:
        pids = json.loads(script.stdout.readline())
        seconds, closing, codes, text = json.loads(script.stdout.readline())
        assert seconds < NOTICE_SECONDS and closing < 10, (seconds, closing)
        assert set(codes) == {"SGLC503"} and "rank 1 ended (signal 9)" in text
        assert gone(pids)
        assert script.stdout.readline() == "8\n"
        assert script.stdout.readline() == "4\n"
        assert script.wait(60) == 0
    finally:
        script.kill()


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = started_script(tmp_path, wait=True)
    assert script.stdout is not None
    try:
        pids = json.loads(script.stdout.readline())
    finally:
        script.kill()
        script.wait()
    assert gone(pids)
