"""`deterministic=True`: a request's bits do not depend on what runs beside it, nor on chunks, the
cache or graphs, so that compiled and eager agree exactly."""

from __future__ import annotations

import json
import random
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import sglc
from sglc.errors import SglcError
from sglc.runtime.batch import Batch, Row
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.cuda.runner import DeviceRunner
from sglc.runtime.engine import EngineCore
from tests.generators import GeneratedProgram, load, programs, run_options
from tests.runtime.common import TOKENIZER, ask, request
from tests.runtime.cuda.test_device_runner import INTERPRETED, TINY, save_model
from tests.test_equivalence import outcome

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = ["float32"] if INTERPRETED else ["bfloat16", "float16", "float32"]
LARGE = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16,
         "num_key_value_heads": 4, "max_position_embeddings": 4096}


def runner_of(path: Path, dtype: str, graphs: bool = False) -> DeviceRunner:
    return load_device_runner(path, device=DEVICE, dtype=dtype, graphs=graphs, max_tokens=512,
                              max_rows=64, deterministic=True)[0]


def test_where_it_is_not_to_be_had(tmp_path: Path) -> None:
    path = save_model(tmp_path)
    with pytest.raises(SglcError, match="deterministic=True needs a GPU"):
        sglc.Engine(path, device="cpu", deterministic=True)
    with pytest.raises(SglcError, match="needs Triton"):
        load_device_runner(path, device="cpu", kernels="torch", deterministic=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("changes", [
    {}, {"model_type": "qwen3", "head_dim": 32},
    {"model_type": "mixtral", "num_local_experts": 5, "sliding_window": 11},
    {"model_type": "gemma2", "head_dim": 16, "sliding_window": 11}], ids=str)
def test_logits_do_not_depend_on_the_step(tmp_path: Path, dtype: str, changes: Any) -> None:
    path = save_model(tmp_path, **changes)
    n, rng = 40 if INTERPRETED else 400, np.random.default_rng(0)
    ids, others = rng.integers(0, 264, n), rng.integers(0, 264, 90)
    slots = rng.permutation(600)
    mine, theirs = slots[:n], slots[n:n + 90]

    def steps(cuts: list[int], beside: list[int], graphs: bool) -> torch.Tensor:
        """The logits of all tokens, read in pieces beside some tokens of another row."""
        runner = runner_of(path, dtype, graphs)
        runner.allocate(600)
        out, done = [], 0
        for (start, end), more in zip(pairwise(cuts), beside, strict=True):
            size = end - start
            rows = [Row(0, size, mine[:end])]
            if more:
                rows.append(Row(size, more, theirs[:done + more]))
            batch = Batch(
                np.concatenate((ids[start:end], others[done:done + more])),
                np.concatenate((np.arange(start, end), np.arange(done, done + more))),
                np.concatenate((mine[start:end], theirs[done:done + more])), rows,
                np.arange(size + more))
            hidden = runner.forward(batch)
            out.append(runner.logits(hidden)[:size].cpu())
            done += more
        runner.close()
        return torch.cat(out)

    whole = steps([0, n], [0], False)
    ways = [([0, n], [9]), ([0, 13, 14, n], [0, 3, 1])]
    if not INTERPRETED:
        ways += [([0, 100, 101, 102, 350, n], [0, 1, 40, 5, 20]),
                 (list(range(n + 1)), [0] * n)]
    for cuts, beside in ways:
        for graphs in (False,) if INTERPRETED else (False, True):
            got = steps(cuts, beside, graphs)
            if INTERPRETED and len(cuts) > 2:  # numpy: see `test_fixed.py`
                torch.testing.assert_close(got, whole, rtol=0, atol=1e-4)
            else:
                assert torch.equal(got, whole), (cuts, beside, graphs)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_requests_alone_and_together(tmp_path: Path, dtype: str) -> None:
    path = save_model(tmp_path, **LARGE)
    text = "The quick brown fox jumps over the lazy dog. " * 20

    def asked() -> list[Any]:
        rng = random.Random(1)
        return [request(text[:rng.randrange(3, 800)] + str(i % 7), max_tokens=rng.randrange(1, 60),
                        temperature=i % 2, key=i, logprobs=i % 3 == 0, ignore_eos=True)
                for i in range(48)]

    def core(graphs: bool, **options: Any) -> EngineCore:
        return EngineCore(runner_of(path, dtype, graphs), TOKENIZER,
                          **{"kv_tokens": 60_000, "max_running": 64, "max_batch_tokens": 512,
                             **options})

    with core(False) as plain:
        want = [ask(plain, [one])[0] for one in asked()]
    for graphs in (False, True):
        for options in ({}, {"max_batch_tokens": 50, "max_running": 9}, {"radix_cache": False},
                        {"policy": "vllm-apc"}, {"kv_tokens": 3000}):
            with core(graphs, **options) as other:
                for _ in range(2):
                    for a, b in zip(ask(other, asked()), want, strict=True):
                        assert (a.ids, a.logprobs) == (b.ids, b.logprobs), (graphs, options)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("deterministic")
    (path / "config.json").write_text(json.dumps({**TINY, **LARGE}))
    with sglc.Engine(path, device="cuda", load_format="dummy", kv_tokens=200_000,
                     deterministic=True) as made:
        yield made


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
@given(programs(), run_options, st.integers(0, 1000))
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate],
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_compiled_is_eager(engine: Any, tmp_path_factory: pytest.TempPathFactory,
                           generated: GeneratedProgram, options: dict[str, Any],
                           seed: int) -> None:
    module = load(generated, tmp_path_factory.getbasetemp())
    program = sglc.program(module.prog)
    rows = [dict(r) for r in generated.rows] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {}
        for mode in ("eager", "compiled", "eager"):
            engine.flush_cache()
            states = program.run_batch(rows, backend=engine, mode=mode, seed=seed, **options)
            found.setdefault(mode, []).append([outcome(s) for s in states])
        alone = [outcome(program.run_batch(rows[:n], backend=engine, mode="compiled", seed=seed,
                                           **options)[-1]) for n in (1, 2)]
    first = found["eager"][0]
    assert found["eager"][1] == first
    assert found["compiled"][0] == first
    assert alone == first[:2]
