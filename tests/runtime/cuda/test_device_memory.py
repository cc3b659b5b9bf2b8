"""Too little memory on the device: a clear error or the whole answer, and the engine goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sglc
from sglc.errors import ModelError
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.engine import EngineCore
from tests.runtime.common import TOKENIZER, ask
from tests.runtime.common import request as asking
from tests.runtime.cuda.test_device_runner import INTERPRETED, PLACES, TINY, save_model

# A model whose steps need gigabytes: 3 GB of weights, 1 MiB of logits a row.
WIDE = {**TINY, "vocab_size": 262144, "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 8192}
GREEDY = {"max_new_tokens": 4, "temperature": 0.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("place", PLACES)
def test_a_small_pool(tiny: Path, place: tuple[str, str, bool]) -> None:
    """A request larger than the pool is refused, a batch of 100 pools is computed, as each alone
    would be."""
    device, kernels, graphs = place

    def open_core(slots: int) -> EngineCore:
        runner = load_device_runner(tiny, device=device, kernels=kernels, graphs=graphs,
                                    dtype="float32", max_tokens=128, max_rows=16)[0]
        return EngineCore(runner, TOKENIZER, kv_tokens=slots, max_running=16,
                          max_batch_tokens=128)

    def rows() -> list[Any]:
        return [asking([1 + (n * 7 + k) % 250 for k in range(20 + n % 13)], max_tokens=6,
                       temperature=0.0, ignore_eos=True) for n in range(200)]

    with open_core(8000) as ample:
        expected = [list(r.ids) for r in ask(ample, rows())]
    with open_core(64) as small:
        refused, = ask(small, [asking(list(range(1, 101)), max_tokens=6, temperature=0.0)])
        assert refused.error is not None and "SGLC" in str(refused.error)
        assert [list(r.ids) for r in ask(small, rows())] == expected
        assert small.stats().kv_in_use == 0


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_a_pool_that_does_not_fit(tiny: Path) -> None:
    with pytest.raises(ModelError, match=r"SGLC504.*does not fit the GPU"):
        sglc.Engine(tiny, device="cuda", load_format="dummy", kv_tokens=10**9)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_memory_that_others_have_taken(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(WIDE))
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - (1 << 30), dtype=torch.uint8, device="cuda")
    try:
        with pytest.raises(ModelError, match="SGLC504"):
            sglc.Engine(tmp_path, device="cuda", load_format="dummy")
    finally:
        del taken
        torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_all_of_the_memory(tmp_path: Path) -> None:
    """mem_fraction=1.0: steps that find no memory fail with an error; those after them do not."""
    (tmp_path / "config.json").write_text(json.dumps(WIDE))
    ids = [[5 + (n * 31 + k) % 200000 for k in range(2000)] for n in range(64)]
    with sglc.Engine(tmp_path, device="cuda", load_format="dummy", mem_fraction=1.0) as engine:
        try:
            answers = engine.generate(input_ids=ids, sampling=GREEDY)
            assert all(len(a.ids) == 4 for a in answers)
        except sglc.SglcError as error:
            assert error.code.startswith("SGLC5")
        one = engine.generate(input_ids=[ids[0][:50]], sampling=GREEDY)
        assert len(one[0].ids) == 4
