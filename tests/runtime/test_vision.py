"""LLaVA and Yi-VL against transformers, on random small models and real image files: features,
logits, greedy text, and the same results in each layout and however a step is cut."""

from __future__ import annotations

import json
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from sglc.backends.local import LocalBackend  # noqa: E402
from sglc.runtime.model_runner import load_runner  # noqa: E402
from sglc.runtime.request import Request, Result, SamplingParams  # noqa: E402
from sglc.tokens.bytes import ByteTokenizer  # noqa: E402
from sglc.tokens.images import FIRST_ID, PlacedImage  # noqa: E402
from sglc.tokens.prompt import Prompt  # noqa: E402
from tests.runtime.model_steps import alone, close, run  # noqa: E402
from tests.runtime.vision_models import (  # noqa: E402
    IMAGE_ID,
    SIZE,
    TEXT,
    TOWER,
    as_own_layout,
    backend_of,
    draw,
    encoded,
    greedy,
    processed,
    save_llava,
)

KINDS = {"llava": {}, "llava-next": {"anyres": True}, "siglip": {"siglip": True}}
PICTURES = (draw(50, 31, 1), draw(20, 77, 2))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices are too small to share
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """A folder in llava-hf's layout of each kind, and transformers' model."""
    root = tmp_path_factory.mktemp("vision")
    return {kind: (root / kind, save_llava(root / kind, **more)) for kind, more in KINDS.items()}


def prompt_of(runner: Any, *parts: str | Any) -> tuple[np.ndarray, list[int], list[PlacedImage]]:
    """The ids of a prompt here, as transformers wants them, and the images in it."""
    prompt = Prompt.empty(ByteTokenizer())
    for part in parts:
        prompt = prompt.append(part) if isinstance(part, str) else prompt.image(
            runner.vision.places.place(part))
    ids = np.array(prompt.token_ids())
    return ids, np.where(ids >= FIRST_ID, IMAGE_ID, ids).tolist(), list(prompt.images)


def logits_of(model: Any, ids: list[int], **inputs: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), **inputs).logits[0]


def continued(backend: LocalBackend, ids: np.ndarray, images: list[PlacedImage],
              count: int) -> list[int]:
    results: list[Result] = []
    backend.submit([Request("generate", array("q", ids.tolist()), results.append,
                            SamplingParams(max_tokens=count, temperature=0, ignore_eos=True),
                            images=tuple(images))])
    assert backend.core.wait_idle(60)
    assert results[0].error is None
    return list(results[0].ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_logits_and_text_are_those_of_transformers(saved, kind, count) -> None:
    path, model = saved[kind]
    inputs = processed(list(PICTURES[:count]), kind == "llava-next")
    if kind == "siglip":
        inputs = stretched(PICTURES[:count])
        (path / "preprocessor_config.json").write_text(json.dumps(
            {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": False}))
    runner, _ = load_runner(path)
    parts = [p for picture in PICTURES[:count] for p in ("see ", picture, "and\n")]
    ids, theirs, images = prompt_of(runner, *parts, "what?")
    close(alone(runner, ids), logits_of(model, theirs, **inputs), 1e-3)
    backend = backend_of(path)
    with backend:
        places = backend.tokenizer.images
        images = [places.place(p) for p in PICTURES[:count]]
        assert continued(backend, ids, images, 32) == greedy(model, theirs, 32, **inputs)


def stretched(pictures: Any) -> dict[str, Any]:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return dict(SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, resample=3)(
        list(pictures), return_tensors="pt"))


@pytest.mark.parametrize("kind", ["llava", "llava-next"])
def test_prefill_in_pieces_is_that_at_once_and_a_batch_is_its_rows(saved, kind) -> None:
    path, _ = saved[kind]
    runner, _ = load_runner(path)
    ids, _, _images = prompt_of(runner, "see ", PICTURES[0], "\nwhat?")
    other, _, _more = prompt_of(runner, PICTURES[1], "or ", PICTURES[0])
    whole, second = alone(runner, ids), alone(runner, other)
    n = len(ids)
    runner.allocate(n + len(other))
    slots = np.arange(n)
    for a, b in ((0, 6), (6, 9), (9, n)):  # borders inside the image
        close(run(runner, [(ids[:b], a, slots[:b])]), whole[a:b])
    both = run(runner, [(ids, 0, slots), (other, 0, np.arange(n, n + len(other)))])
    close(both[:n], whole)
    close(both[n:], second)
    assert runner.vision.encoded == 2  # each image once, in all of these steps


def test_a_chunk_of_few_tokens_cuts_images(saved) -> None:
    path, model = saved["llava-next"]
    with backend_of(path, max_batch_tokens=7, max_running=4) as backend:
        ids, theirs, images = prompt_of(backend.core.runner, "see ", PICTURES[0], "\nwhat?")
        inputs = processed([PICTURES[0]], True)
        assert continued(backend, ids, images, 12) == greedy(model, theirs, 12, **inputs)
        assert backend.stats().images_encoded == 1


# -- layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llava", "llava-next"])
@pytest.mark.parametrize("tower", ["inside", "beside"])
def test_the_layout_of_llavas_own_code_gives_the_same(saved, tmp_path, kind, tower) -> None:
    path, _ = saved[kind]
    as_own_layout(path, tmp_path / "own", tower=tower)
    theirs, ours = load_runner(path)[0], load_runner(tmp_path / "own")[0]
    for picture in PICTURES:
        a, _, _images = prompt_of(theirs, "x ", picture, "?")
        b, _, _more = prompt_of(ours, "x ", picture, "?")
        assert a.tolist() == b.tolist()
        assert torch.equal(alone(theirs, a), alone(ours, b))


def test_padding_is_that_of_transformers(saved, tmp_path) -> None:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    path, model = saved["llava"]
    as_own_layout(path, tmp_path / "own", image_aspect_ratio="pad")
    runner, _ = load_runner(tmp_path / "own")
    processor = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    inputs = dict(processor(list(PICTURES), return_tensors="pt"))
    ids, theirs, _images = prompt_of(runner, *PICTURES, "?")
    close(alone(runner, ids), logits_of(model, theirs, **inputs), 1e-3)


def test_a_known_tower_needs_no_folder_of_its_own(saved, tmp_path, monkeypatch) -> None:
    from sglc.runtime.vision import config

    path, _ = saved["llava"]
    as_own_layout(path, tmp_path / "own", mm_vision_tower="some/tower")
    known = json.loads((tmp_path / "own" / "vit" / "config.json").read_text())
    monkeypatch.setitem(config._KNOWN, "some/tower", known)
    runner, _ = load_runner(tmp_path / "own")
    ids, _, _images = prompt_of(runner, PICTURES[0], "?")
    there = load_runner(path)[0]
    same, _, _more = prompt_of(there, PICTURES[0], "?")
    assert torch.equal(alone(runner, ids), alone(there, same))


class YiVL(torch.nn.Module):
    """Yi-VL's model from transformers' parts, as its own code has it (01-ai/Yi, VL/llava)."""

    def __init__(self) -> None:
        super().__init__()
        hidden, wide = TEXT["hidden_size"], TOWER["hidden_size"]
        self.tower = transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(**TOWER, hidden_act="gelu"))
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(wide, hidden), torch.nn.LayerNorm(hidden), torch.nn.GELU(),
            torch.nn.Linear(hidden, hidden), torch.nn.LayerNorm(hidden))
        self.text = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> Any:
        seen = self.tower(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]
        x = self.text.get_input_embeddings()(input_ids)
        x[input_ids == IMAGE_ID] = self.projector(seen).flatten(0, 1)
        return self.text(inputs_embeds=x)


def test_yi_vl(tmp_path) -> None:
    torch.manual_seed(5)
    model = YiVL().eval()
    for label, p in model.named_parameters():
        torch.nn.init.normal_(p, mean=float("norm" in label and p.dim() == 1), std=0.2)
    weights = {f"model.mm_projector.{k}": v for k, v in model.projector.state_dict().items()}
    weights |= {k: v.clone() for k, v in model.text.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "vit").mkdir()
    model.tower.save_pretrained(tmp_path / "vit")
    text = {k: v for k, v in model.text.config.to_dict().items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps({
        **text, "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava",
        "mm_vision_tower": "vit", "mm_projector_type": "mlp2x_gelu_Norm",
        "mm_hidden_size": TOWER["hidden_size"], "mm_vision_select_layer": -2,
        "image_aspect_ratio": "pad"}))
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    processor = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    inputs = dict(processor(list(PICTURES), return_tensors="pt"))
    runner, _ = load_runner(tmp_path)
    ids, theirs, _images = prompt_of(runner, *PICTURES, "what?")
    close(alone(runner, ids), logits_of(model, theirs, **inputs), 1e-3)
    with backend_of(tmp_path) as backend:
        _, _, images = prompt_of(backend.core.runner, *PICTURES)
        assert continued(backend, ids, images, 32) == greedy(model, theirs, 32, **inputs)


# -- files -----------------------------------------------------------------------------------------


def test_files_bytes_urls_and_pictures_are_one_image(saved, tmp_path) -> None:
    import base64

    path, _ = saved["llava"]
    places = load_runner(path)[0].vision.places
    picture = PICTURES[0]
    file = tmp_path / "a.png"
    picture.save(file)
    data = file.read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    found = [places.place(s) for s in (picture, file, str(file), data, bytearray(data), url,
                                       picture.copy())]
    assert all(f is found[0] for f in found)
    assert places.prepared == 1
    other = places.place(encoded(picture, "JPEG"))
    assert other.key != found[0].key
    assert not set(other.ids) & set(found[0].ids)
    picture.save(tmp_path / "b.webp", lossless=True)
    assert places.place(tmp_path / "b.webp") is found[0]


def test_ids_are_a_function_of_the_pixels_unless_two_images_meet(saved) -> None:
    from sglc.runtime.vision.places import Places

    path, _ = saved["llava"]
    shape = load_runner(path)[0].vision.shape
    one, two = Places(shape), Places(shape)
    assert one.place(PICTURES[0]).ids == two.place(PICTURES[0]).ids
    crowded = Places(shape)
    crowded._digests[one.place(PICTURES[1]).key] = b"another image's"
    moved = crowded.place(PICTURES[1])
    assert moved.key == one.place(PICTURES[1]).key + 1
    assert crowded.find(moved.key) is moved


def test_hashes_of_images_long_unused_are_forgotten(saved, monkeypatch) -> None:
    from sglc.runtime.vision import places as module

    monkeypatch.setattr(module, "_KEPT_HASHES", 4)
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    path, _ = saved["llava"]
    places = module.Places(load_runner(path)[0].vision.shape)
    held = places.place(draw(24, 24, 100))
    keys = [places.place(draw(24, 24, seed)).key for seed in range(20)]
    assert len(set(keys)) == 20 and len(places._digests) <= 5
    assert places.place(draw(24, 24, 100)) is held  # one in use is not
    assert places._digests[held.key] == held.digest
    assert places.place(draw(24, 24, 0)).key == keys[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (200, 3), (24, 24), (25, 23), (64, 48),
                                  (300, 90), (90, 301)])
def test_tiles_are_those_of_transformers(saved, size) -> None:
    picture = draw(*size, seed=sum(size))
    for kind in ("llava", "llava-next"):
        path, model = saved[kind]
        runner, _ = load_runner(path)
        anyres = kind == "llava-next"
        inputs = processed([picture], anyres)
        more = {"image_sizes": inputs["image_sizes"]} if anyres else {}
        with torch.inference_mode():
            expected = model.get_image_features(inputs["pixel_values"], **more).pooler_output[0]
        placed = runner.vision.places.place(picture)
        close(runner.vision.features(placed), expected, 1e-3)
        assert placed.count == len(placed.ids) == len(expected) <= runner.vision.places.most


# -- configurations that say something else --------------------------------------------------------


@pytest.mark.parametrize(("changes", "named"), [
    ({"mm_vision_tower": "nowhere at all"}, "mm_vision_tower"),
    ({"mm_projector_type": "resampler"}, "mm_projector_type"),
    ({"image_aspect_ratio": "sideways"}, "image_aspect_ratio"),
    ({"mm_vision_select_layer": -9}, "mm_vision_select_layer"),
    ({"mm_vision_select_feature": "everything"}, "mm_vision_select_feature"),
    ({"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[25, 50]]}, "image_grid_pinpoints"),
    ({"image_aspect_ratio": "anyres"}, "image_grid_pinpoints"),
    ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
    ({"architectures": ["LlavaMptForCausalLM"]}, "architectures"),
])
def test_configurations_that_are_not_known_are_refused_by_name(saved, tmp_path, changes,
                                                               named) -> None:
    from sglc.errors import ModelError

    as_own_layout(saved["llava"][0], tmp_path / "own", **changes)
    with pytest.raises(ModelError, match="SGLC504") as caught:
        load_runner(tmp_path / "own")
    assert named in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize(("cut", "named"), [
    ("model.mm_projector.0.weight", "projector.0.weight"),
    ("model.vision_tower.vision_tower.vision_model.embeddings.class_embedding",
     "class_embedding"), ("model.image_newline", "newline")])
def test_missing_and_misshapen_tensors_are_named(saved, tmp_path, cut, named) -> None:
    from sglc.errors import ModelError

    as_own_layout(saved["llava-next"][0], tmp_path / "own")
    file = tmp_path / "own" / "model.safetensors"
    weights = load_file(file)
    good = weights.pop(cut)
    save_file(weights, file)
    with pytest.raises(ModelError, match=named):
        load_runner(tmp_path / "own")
    save_file({**weights, cut: good[..., :-1].contiguous()}, file)
    with pytest.raises(ModelError, match=cut.replace(".", "[.]")) as caught:
        load_runner(tmp_path / "own")
    assert "shape" in str(caught.value) and "model.safetensors" in str(caught.value)


STRANGE = (None, -1, 0, 3, 10**12, "x", [], {}, [[]], True, 1.5, "../..", [1, 2], float("nan"))


def test_mutated_configurations_are_read_or_refused(saved, tmp_path) -> None:
    """Each field, gone or something else: a model that works, or an error that is ours."""
    from sglc.errors import ModelError

    random = Random(1)
    as_own_layout(saved["llava-next"][0], tmp_path / "own")
    shutil.copytree(saved["llava"][0], tmp_path / "hf")
    refused = 0
    for folder, name in (("own", "config.json"), ("own", "vit/config.json"),
                         ("hf", "config.json"), ("hf", "preprocessor_config.json")):
        file = tmp_path / folder / name
        text = file.read_text()
        for place in places_in(json.loads(text)):
            changed = at = json.loads(text)
            for key in place[:-1]:
                at = at[key]
            value = random.choice(("gone", *STRANGE))
            at[place[-1]] = value
            if value == "gone":
                del at[place[-1]]
            file.write_text(json.dumps(changed))
            try:
                vision = load_runner(tmp_path / folder)[0].vision
                if vision is not None:
                    vision.features(vision.places.place(PICTURES[0]))
            except ModelError:
                refused += 1
        file.write_text(text)
    assert refused > 20


def places_in(values: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The way to each field."""
    return [p for k, v in values.items()
            for p in ([(*before, k)] + (places_in(v, (*before, k)) if isinstance(v, dict) else []))]
