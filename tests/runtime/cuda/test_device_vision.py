"""Models with vision on the device's engine against the CPU's: the same ids for prompts with
images, alone, together, and cut.  With the marker `gpu` on a GPU, by graphs and without."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("transformers")

from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import load_runner
from sglc.runtime.request import Request, Result, SamplingParams
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.prompt import Prompt
from tests.runtime.cuda.test_device_runner import PLACES, device_runner
from tests.runtime.vision_models import draw, save_llava

PICTURES = (draw(50, 31, 1), draw(20, 77, 2), draw(64, 64, 3))
# What stands in each prompt: texts, and numbers of pictures.
PROMPTS = [("look: ", 0, "\nwhat?"), (1, "and ", 2, "?"), ("no image here",), (0, 0, "x"),
           ("look: ", 0, "\nwho?"), (2,)]


@pytest.fixture(scope="module", params=["llava", "llava-next"])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("device") / request.param
    save_llava(path, anyres=request.param == "llava-next")
    yield path
    torch.set_num_threads(threads)


def answers(runner: Any, **options: Any) -> tuple[list[list[int]], Any]:
    """What the engine says to all prompts at once, greedily, and its statistics."""
    tokenizer = ByteTokenizer()
    results: dict[int, Result] = {}
    with EngineCore(runner, tokenizer, kv_tokens=2048, **options) as core:
        requests = []
        for number, parts in enumerate(PROMPTS):
            prompt = Prompt.empty(tokenizer)
            for part in parts:
                prompt = prompt.append(part) if isinstance(part, str) else prompt.image(
                    runner.vision.places.place(PICTURES[part]))
            requests.append(Request(
                "generate", array("q", prompt.token_ids()),
                lambda r, n=number: results.__setitem__(n, r),
                SamplingParams(max_tokens=12, temperature=0, ignore_eos=True),
                images=prompt.images))
        core.submit(requests)
        assert core.wait_idle(120)
        core.check()
        stats = core.stats()
    assert all(r.error is None for r in results.values())
    return [list(results[n].ids) for n in range(len(PROMPTS))], stats


@pytest.mark.parametrize("place", PLACES)
def test_ids_equal_those_of_the_cpu(folder: Path, place: Any) -> None:
    expected, _ = answers(load_runner(folder)[0])
    found, stats = answers(device_runner(folder, place))
    assert found == expected
    assert stats.images_encoded == len(PICTURES)
    cut, stats = answers(device_runner(folder, place), max_batch_tokens=11, max_running=8)
    assert cut == expected
    assert stats.images_encoded == len(PICTURES)


@pytest.mark.gpu
def test_features_in_bfloat16_are_near(folder: Path) -> None:
    exact = load_runner(folder)[0].vision
    near = device_runner(folder, ("cuda", "triton", True), dtype="bfloat16").vision
    for picture in PICTURES:
        a = exact.features(exact.places.place(picture))
        b = near.features(near.places.place(picture)).float().cpu()
        assert a.shape == b.shape
        assert (a - b).norm() < 0.03 * a.norm()
