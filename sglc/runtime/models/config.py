"""The shape of a model, and where it is read from: one place to import them from."""

from __future__ import annotations

from sglc.runtime.models.gguf_config import config_from_gguf
from sglc.runtime.models.hf_config import config_from_hf
from sglc.runtime.models.shape import Experts, LlamaConfig, RopeScaling

__all__ = ["Experts", "LlamaConfig", "RopeScaling", "config_from_gguf", "config_from_hf"]
