"""Models by their Hugging Face hub id, through `huggingface_hub`, which is optional.

Only configuration, tokenizer and safetensors files are fetched; code and pickles are not.
"""

from __future__ import annotations

import re
from pathlib import Path

from sglc.errors import ModelError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/[\w./-]+\.gguf)?")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.tiktoken", "*.jinja", "LICENSE*"]
# Copies of the weights in other layouts.
_UNWANTED = ["original/*", "consolidated*", "onnx/*", "*/*.safetensors"]


def is_hub_id(model: str) -> bool:
    """Whether this has the form of a hub id: `owner/name`, or `owner/name/file.gguf`."""
    return _ID.fullmatch(model) is not None and ".." not in model


def fetch_from_hub(model: str) -> Path:
    """The folder (or GGUF file) of a hub model; downloaded if it is not in the hub's own cache.

    Raises ModelError (SGLC504) if `huggingface_hub` is not installed, if there is no network and
    the model was not fetched before, or if the hub does not have it.
    """
    try:
        import huggingface_hub
    except ImportError as e:
        raise ModelError(
            "SGLC504", f"there is no model at {model!r}, and hub ids need huggingface_hub",
            why=str(e), fixes=("give a GGUF file or a Hugging Face folder",
                               "pip install huggingface_hub")) from None
    owner, name, *file = model.split("/", 2)
    try:
        if file:
            return Path(huggingface_hub.hf_hub_download(f"{owner}/{name}", file[0]))
        return Path(huggingface_hub.snapshot_download(
            f"{owner}/{name}", allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    # The hub's errors are of many types, of its own and of its HTTP library.
    except Exception as e:
        raise ModelError(
            "SGLC504", f"there is no model at {model!r}, and it cannot be had from the hub",
            why=f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200] if str(e) else ''}",
            fixes=("if it is a path, correct it: a GGUF file or a Hugging Face folder",
                   "connect to a network that reaches the hub, or set HF_ENDPOINT to a mirror",
                   "for a gated model, log in with `hf auth login`")) from e
