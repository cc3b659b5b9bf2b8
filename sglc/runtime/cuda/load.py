"""Opening a model on a GPU."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sglc.errors import ModelError
from sglc.kernels.registry import resolve_device
from sglc.runtime.cuda.dummy import DummyWeights
from sglc.runtime.cuda.model import DeviceLlama
from sglc.runtime.cuda.runner import DeviceRunner
from sglc.runtime.model_runner import open_model
from sglc.runtime.models.config import LlamaConfig, config_from_hf
from sglc.runtime.models.fields import Fields
from sglc.runtime.models.quantization import int4_scheme
from sglc.runtime.parallel.group import Group
from sglc.runtime.parallel.sharded import rank_part
from sglc.runtime.vision.tower import VisionModel
from sglc.runtime.weights.metered import MeteredWeights
from sglc.runtime.weights.source import WeightSource

_LARGE = 48 << 30  # bytes beside the weights, of which 16,896 tokens in flight take little

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_device_runner(path: str | Path, *, dtype: str = "auto", device: str = "cuda",
                       kernels: str = "auto", load_format: str = "auto",
                       max_tokens: int = 8192, max_rows: int = 1024, graphs: bool = True,
                       deterministic: bool = False, group: Group | None = None,
                       runner_type: Callable[..., DeviceRunner] = DeviceRunner
                       ) -> tuple[DeviceRunner, dict[str, Any]]:
    """A runner on `device` for the model at `path`, and what a tokenizer needs to know.

    dtype: "bfloat16", "float16", "float32" (without TF32), or "auto": what config.json says,
    else bfloat16 (float16 instead below compute capability 8.0).  load_format: "auto" reads the
    weights; "dummy" makes random ones on the device, as wide as its `initializer_range`, and needs
    nothing but a folder with a config.json.  deterministic: a token's result does not depend on
    what is computed beside it.  group: of which this rank's part is loaded.
    runner_type: what makes the runner.  The rest as `load_runner` and `DeviceRunner`.
    Raises ModelError (SGLC504) if the model cannot be used, or does not fit.
    """
    where = torch.device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    _check(dtype, load_format)
    chosen = resolve_device(kernels, deterministic)
    source, config, about, named = _opened(Path(path), load_format)
    kind = _kind(dtype, named, where)
    try:
        if source is None:
            file = Path(path) / "config.json"
            source = DummyWeights(config, kind, where, scheme=int4_scheme(named, file),
                                  spread=_spread(named, file))
        if group is not None:
            source, config = rank_part(source, config, group, even=True)
        with torch.inference_mode(), MeteredWeights(source) as metered:
            model = DeviceLlama(config, metered, chosen, kind, where, group)
        runner = runner_type(model, chosen, max_tokens=max_tokens, max_rows=max_rows,
                             graphs=graphs, fixed=deterministic,
                             loaded=metered.report if load_format == "auto" else None)
        if "vision" in about and (group is None or group.rank == 0):
            part = about["vision"]
            runner.vision = VisionModel(part.shape, part.weights, kind, where)
    except torch.OutOfMemoryError as error:
        raise ModelError("SGLC504", "the model does not fit the GPU", why=str(error)[:200],
                         fixes=("use a smaller model, or a shorter dtype",
                                "end other processes that use the GPU")) from error
    return runner, about


def step_tokens(path: str | Path, device: torch.device, size: int = 1, *, dtype: str = "auto",
                load_format: str = "auto") -> int:
    """How many new tokens a step of the model at `path`, on `size` devices, takes by default: on
    a GPU so many that the tiles of most products, of 128 rows, keep all processors busy to the end;
    8192 where the weights, those of 4 bits counted as dense ones, leave little memory for KV."""
    _check(dtype, load_format)
    if device.type != "cuda":
        return 8192
    about = torch.cuda.get_device_properties(device)
    _, config, _, named = _opened(Path(path), load_format)
    weights = sum(map(math.prod, config.tensor_shapes().values()))
    left = about.total_memory - weights * _kind(dtype, named, device).itemsize // size
    return 128 * about.multi_processor_count if left >= _LARGE else 8192


def model_shape(path: str | Path, load_format: str = "auto") -> LlamaConfig:
    """The shape of the model that `load_device_runner` would load."""
    return _opened(Path(path), load_format)[1]


def _check(dtype: str, load_format: str) -> None:
    if dtype not in (*_DTYPES, "auto"):
        raise ModelError("SGLC504", f"unknown dtype {dtype!r}",
                         fixes=(f"use auto, {', '.join(_DTYPES)}",))
    if load_format not in ("auto", "dummy"):
        raise ModelError("SGLC504", f"unknown load_format {load_format!r}",
                         fixes=('use "auto" or "dummy"',))


def _opened(path: Path, load_format: str
            ) -> tuple[WeightSource | None, LlamaConfig, dict[str, Any], dict[str, Any]]:
    """The weights of a model, None for random ones; its shape, what a tokenizer needs, and what
    config.json says, if there is one."""
    if load_format != "dummy":
        source, config, about = open_model(path)
        return source, config, about, getattr(source, "config", {})
    try:
        named = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("SGLC504", f"{path} has no config.json that can be read",
                         why=str(error)) from error
    return None, config_from_hf(named, path / "config.json"), {"folder": str(path)}, named


def _spread(config: dict[str, Any], file: Path) -> float:
    """What a model's weights have as standard deviation before training, as config.json says."""
    fields = Fields(config, file)
    found = fields.number("initializer_range", 0.02)
    if not 0 < found <= 1:
        fields.refuse(f"initializer_range is {found:g}, not above 0 and at most 1")
    return found


def _kind(dtype: str, config: dict[str, Any], device: torch.device) -> torch.dtype:
    return _DTYPES[_auto_dtype(config, device) if dtype == "auto" else dtype]


def _auto_dtype(config: dict[str, Any], device: torch.device) -> str:
    """What config.json says, else bfloat16; float16 for that on GPUs that have no bfloat16."""
    name = config.get("dtype") or config.get("torch_dtype")
    name = name if name in _DTYPES else "bfloat16"
    if name == "bfloat16" and device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "float16"
    return name
