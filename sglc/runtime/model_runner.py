"""A real model behind the engine: loads it, holds its KV pool, and runs steps on the CPU.

It turns a `Batch` into tensors and an attention plan.  Requests, caches and sampling are not
known here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglc.errors import ModelError
from sglc.kernels.attention import capped_attention_torch
from sglc.kernels.registry import Kernels, resolve
from sglc.runtime.attention_plan import AttentionKernel, AttentionPlan, plan_attention
from sglc.runtime.batch import Batch, Row
from sglc.runtime.models.aliases import hf_weights, own_names
from sglc.runtime.models.config import LlamaConfig, config_from_gguf, config_from_hf
from sglc.runtime.models.llama import Llama
from sglc.runtime.models.llama_gguf import LlamaGGUF
from sglc.runtime.models.quantization import int4_scheme
from sglc.runtime.parallel.group import Group
from sglc.runtime.parallel.sharded import rank_part
from sglc.runtime.vision.config import is_vision
from sglc.runtime.vision.opened import open_vision
from sglc.runtime.vision.tower import VisionModel
from sglc.runtime.vision.weights import TextWeights
from sglc.runtime.weights.gguf import GGUFFile
from sglc.runtime.weights.hf_folder import HFFolder
from sglc.runtime.weights.int4_checkpoint import Int4Checkpoint
from sglc.runtime.weights.metered import LoadReport, MeteredWeights
from sglc.runtime.weights.source import WeightSource

_DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}


class ModelRunner:
    """A `Runner` (see `batch.py`) over a model.  The KV pool is float32.

    `loaded` says how fast the weights were read; `vision` computes what images stand for, if the
    model has any.  Steps may come from any one thread at a time.
    """

    def __init__(self, model: Llama, kernels: Kernels, dtype: torch.dtype,
                 loaded: LoadReport | None = None) -> None:
        c = model.config
        self.config: LlamaConfig = c
        self.kernels = kernels
        self.dtype = dtype
        self.loaded = loaded
        self.vocab_size = c.vocab_size
        self.context_length = c.context_length
        self.bytes_per_token = c.layers * 2 * c.kv_heads * c.head_dim * 4
        self.vision: VisionModel | None = None
        self._model: Llama | None = model
        self._windows = [c.window(n) for n in range(c.layers)]
        self._attention = _attention_kernel(c, kernels)
        self._pools = torch.empty(0)
        self._scratch = torch.empty(0)

    def allocate(self, slots: int) -> None:
        """Makes room for `slots` token positions; what was stored before is lost."""
        c = self.config
        self._pools = torch.empty(0)
        # numpy's zeros, unlike torch's, take no memory until they are written.
        zeros = np.zeros((c.layers, slots, 2, c.kv_heads, c.head_dim), np.float32)
        self._pools = torch.from_numpy(zeros)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """Writes the step's KV; normed hidden states of `batch.outputs`, float32 (K, H)."""
        model = self._open()
        plans = self._plans(batch.rows)
        plan = plans[0]
        arrays, outputs = (batch.ids, batch.positions, batch.slots), batch.outputs
        if plan.order is not None:
            arrays = tuple(a[plan.order] for a in arrays)
            place = np.empty(len(plan.order), np.int64)
            place[plan.order] = np.arange(len(plan.order))
            outputs = place[outputs]
        scratch = self._room(max(p.scratch_keys for p in plans))

        def attend(queries: Tensor, pool: Tensor, layer: int) -> Tensor:
            return plans[layer].attend(self._attention, queries, pool, scratch)

        with torch.inference_mode():
            ids, positions, slots, wanted = (_tensor(a) for a in (*arrays, outputs))
            merged = None if self.vision is None else self.vision.merged(arrays[0])
            images = None if merged is None else (merged[0], _tensor(merged[1]))
            hidden = model.forward(ids, positions, slots, self._pools, attend, wanted, images)
        return hidden.clone()  # an ordinary tensor: callers may write to it

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """float32 (K, vocab_size) of hidden states (K, H)."""
        return self._open().logits(hidden)

    @torch.no_grad()
    def logits_of(self, hidden: Tensor, ids: np.ndarray) -> Tensor:
        """float32 (K, len(ids)): `logits(hidden)[:, ids]` up to rounding, of these rows of the
        LM head alone."""
        return self._open().logits_of(hidden, _tensor(ids))

    def close(self) -> None:
        """Frees the weights and the pool."""
        self._model = None
        self._pools = self._scratch = torch.empty(0)

    def _plans(self, rows: list[Row]) -> list[AttentionPlan]:
        """The plan of each layer; all have the same order of tokens."""
        longest = max((len(row.context) for row in rows), default=0)
        windows = [w if w < longest else 0 for w in self._windows]
        by_window = {w: plan_attention(rows, w) for w in set(windows)}
        return [by_window[w] for w in windows]

    def _open(self) -> Llama:
        if self._model is None:
            raise ModelError("SGLC503", "the model was closed")
        return self._model

    def _room(self, keys: int) -> Tensor:
        """A buffer that gathered keys and values fit into, kept between steps."""
        if len(self._scratch) < keys:
            c = self.config
            self._scratch = torch.empty(keys, 2 * c.kv_heads * c.head_dim)
        return self._scratch


def load_runner(path: str | Path, *, dtype: str = "auto", device: str = "cpu",
                kernels: str = "auto", group: Group | None = None,
                quantization: str | None = None) -> tuple[ModelRunner, dict[str, Any]]:
    """A runner for the model at `path`, and what a tokenizer needs to know.

    path: a GGUF file, a folder with exactly one, or a Hugging Face folder.
    dtype: "float32", "bfloat16" (linear layers only), or "auto", which is float32 on the CPU.
    kernels: "auto" or "torch".  group: of which this rank's part is loaded.
    quantization: "int8" keeps linear layers in 8 bits, whatever the file has.
    Returns the GGUF metadata as the second part; for a Hugging Face folder {"folder": path}.
    Raises ModelError (SGLC504) if `path` is no model or not a supported one.
    """
    if dtype not in _DTYPES:
        raise ModelError("SGLC504", f"unknown dtype {dtype!r}",
                         fixes=(f"use {', '.join(_DTYPES)}",))
    if device not in ("cpu", "auto"):
        raise ModelError("SGLC504", f"the device {device!r} is not supported", fixes=("use cpu",))
    source, config, about = open_model(Path(path))
    if group is not None:
        source, config = rank_part(source, config, group, even=False)
    chosen = resolve(kernels, _DTYPES[dtype], quantization)
    # Loading is thousands of small operations: threads that wait for each other at every one
    # make it ten times slower where another process is busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), MeteredWeights(source) as metered:
            model = Llama(config, metered, chosen, _DTYPES[dtype], group)
    finally:
        torch.set_num_threads(threads)
    runner = ModelRunner(model, chosen, _DTYPES[dtype], metered.report)
    if "vision" in about and (group is None or group.rank == 0):
        part = about["vision"]
        runner.vision = VisionModel(part.shape, part.weights, torch.float32)
    return runner, about


def open_model(path: Path) -> tuple[WeightSource, LlamaConfig, dict[str, Any]]:
    """The weights of a model, its shape, and what a tokenizer needs to know.

    path: a GGUF file, a folder with exactly one, or a Hugging Face folder.
    """
    file = _gguf_file(path)
    if file is not None:
        gguf = GGUFFile(file)
        if gguf.metadata.get("split.count") not in (None, 0, 1):
            raise ModelError("SGLC504", f"{file} is one part of several",
                             why=f"split.count is {gguf.metadata['split.count']!r}",
                             fixes=("merge the parts with llama.cpp's gguf-split",))
        config = config_from_gguf(gguf.metadata, {n: t.shape for n, t in gguf.tensors.items()},
                                  file)
        return LlamaGGUF(gguf, config), config, gguf.metadata
    folder: HFFolder | TextWeights = HFFolder(path)
    about: dict[str, Any] = {"folder": str(path)}
    if isinstance(folder, HFFolder) and is_vision(folder.config):
        folder, about["vision"] = open_vision(folder)
    config = config_from_hf(folder.config, path / "config.json")
    scheme = int4_scheme(folder.config, path / "config.json")
    source = folder if scheme is None else Int4Checkpoint(folder, scheme, own_names(config))
    return hf_weights(source, config), config, about


def _attention_kernel(c: LlamaConfig, kernels: Kernels) -> AttentionKernel:
    """The kernel with the model's own treatment of scores."""
    scale = c.attention_scale or None
    if c.attention_cap:
        return partial(capped_attention_torch, scale=scale, cap=c.attention_cap)
    return kernels.attention if scale is None else partial(kernels.attention, scale=scale)


def _gguf_file(path: Path) -> Path | None:
    """The GGUF file that `path` means; None if it is a Hugging Face folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError("SGLC504", f"there is no model at {path}",
                         fixes=("give a GGUF file or a Hugging Face folder",))
    if (path / "config.json").is_file():
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) != 1:
        raise ModelError("SGLC504", f"{path} is not a model folder",
                         why=f"it has no config.json and {len(found)} GGUF files",
                         fixes=("give a GGUF file or a Hugging Face folder",))
    return found[0]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
