"""Random models with vision in each layout, transformers' word on what they say, and images."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from sglc.backends.local import LocalBackend
from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import load_runner
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.templates import ChatTemplate

IMAGE_ID = 263
SAMPLED = 257
SIZE, PATCH = 24, 8  # nine patches
GRIDS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
TEXT = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "pad_token_id": None}
TOWER = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
         "num_attention_heads": 2, "image_size": SIZE, "patch_size": PATCH}
PREPROCESSOR = {"crop_size": {"height": SIZE, "width": SIZE}, "size": {"shortest_edge": SIZE}}


def draw(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of smooth colours."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = BytesIO()
    image.save(out, kind)
    return out.getvalue()


def save_llava(path: Path, *, anyres: bool = False, siglip: bool = False, **more: Any) -> Any:
    """A random model in llava-hf's layout at `path`; transformers' model."""
    torch.manual_seed(3)
    family = "LlavaNext" if anyres else "Llava"
    tower = transformers.SiglipVisionConfig(**TOWER) if siglip else transformers.CLIPVisionConfig(
        **TOWER)
    given = {"image_grid_pinpoints": GRIDS} if anyres else {}
    given |= {"vision_feature_select_strategy": "full"} if siglip else {}
    config = getattr(transformers, f"{family}Config")(
        vision_config=tower, text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=IMAGE_ID, **{**given, **more})
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).float().eval()
    for label, p in model.named_parameters():  # larger than by default, so that errors show
        norm = "norm" in label and label.endswith("weight")
        torch.nn.init.normal_(p, mean=float(norm), std=0.2)
    model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return model


def as_own_layout(source: Path, path: Path, *, tower: str = "inside", **more: Any) -> None:
    """The model at `source`, of llava-hf's layout, in that of LLaVA's own code.  tower: whether
    its weights are "inside" the checkpoint, or only in a folder "beside" the others."""
    weights = load_file(source / "model.safetensors")
    named = json.loads((source / "config.json").read_text())
    path.mkdir()
    vit, renamed = {}, {}
    for name, tensor in weights.items():
        rest = name.removeprefix("model.")
        if rest.startswith("vision_tower."):
            own = rest.removeprefix("vision_tower.").removeprefix("vision_model.")
            vit[f"vision_model.{own}"] = tensor
            if tower == "inside":
                renamed[f"model.vision_tower.vision_tower.vision_model.{own}"] = tensor
        elif rest.startswith("multi_modal_projector."):
            own = rest.removeprefix("multi_modal_projector.")
            own = own.replace("linear_1", "0").replace("linear_2", "2")
            renamed[f"model.mm_projector.{own}"] = tensor
        elif rest.startswith("image_newline"):
            renamed["model.image_newline"] = tensor
        else:
            own = rest.removeprefix("language_model.").removeprefix("model.")
            renamed[own if own.startswith("lm_head") else f"model.{own}"] = tensor
    anyres = named["model_type"] == "llava_next"
    text = {k: v for k, v in named["text_config"].items() if v is not None}
    config = {**text, "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava",
              "mm_vision_tower": "./vit", "mm_projector_type": "mlp2x_gelu",
              "mm_hidden_size": TOWER["hidden_size"], "mm_vision_select_layer": -2,
              "mm_vision_select_feature": "patch", "mm_use_im_start_end": False,
              "image_aspect_ratio": "anyres" if anyres else "square",
              "mm_patch_merge_type": "spatial_unpad" if anyres else "flat", **more}
    if anyres:  # (width, height) here
        config["image_grid_pinpoints"] = [[w, h] for h, w in GRIDS]
    (path / "config.json").write_text(json.dumps(config))
    save_file(renamed, path / "model.safetensors")
    (path / "vit").mkdir()
    (path / "vit" / "config.json").write_text(json.dumps(
        {**named["vision_config"], "model_type": "clip_vision_model"}))
    shutil.copy(source / "preprocessor_config.json", path / "vit")
    if tower == "beside":
        save_file(vit, path / "vit" / "model.safetensors")


def processed(images: list[Image.Image], anyres: bool) -> dict[str, Any]:
    """What transformers' own image processors make of images."""
    if anyres:
        from transformers.models.llava_next.image_processing_pil_llava_next import (
            LlavaNextImageProcessorPil as Processor,
        )

        return dict(Processor(**PREPROCESSOR, image_grid_pinpoints=GRIDS)(
            images, return_tensors="pt"))
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return dict(CLIPImageProcessorPil(**PREPROCESSOR)(images, return_tensors="pt"))


def backend_of(path: Path, *, kv_tokens: int = 2048, template: ChatTemplate | None = None,
               **more: Any) -> LocalBackend:
    """The model at `path` behind programs, with a tokenizer of bytes."""
    runner, _ = load_runner(path)
    tokenizer = ByteTokenizer()
    tokenizer.images = runner.vision.places if runner.vision is not None else None
    core = EngineCore(runner, tokenizer, kv_tokens=kv_tokens, **more)
    plain = template or ChatTemplate("plain", None, {
        "user": ("U:", "\n"), "assistant": ("A:", "\n")}, image_token="<image>\n")
    return LocalBackend(core, tokenizer, plain.bind(tokenizer))


@torch.inference_mode()
def greedy(model: Any, ids: list[int], count: int, **inputs: Any) -> list[int]:
    """What transformers' model goes on with, always the most probable token that can be sampled:
    a byte, or the byte tokenizer's end."""
    out: list[int] = []
    for _ in range(count):
        logits = model(input_ids=torch.tensor([ids + out]), **inputs).logits
        out.append(int(logits[0, -1, :SAMPLED].argmax()))
    return out


def save_tokenizer(path: Path) -> None:
    """A tokenizer.json of one token a byte, and </s>, at `path`."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(BPE(vocab, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("</s>", special=True)])
    path.mkdir(exist_ok=True)
    made.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
