"""From settings to an engine, also for `sglc run-batch` and `sglc chat`.  Knows no HTTP."""

from __future__ import annotations

import os
from typing import Any

from sglc.errors import LanguageError
from sglc.serve.options import ServeOptions
from sglc.tokens.template_file import read_template

# New tokens a step on a GPU while others wait for their next one: half of what is best for whole
# batches (183 ms of an 8B model on an H200).
_SERVED_TOKENS = 8192


def open_backend(options: ServeOptions, *, batches: bool = False) -> Any:
    """The engine that was asked for; batches: for whole batches, in which nobody waits for single
    tokens.  Raises SglcError."""
    template = read_template(options.chat_template)
    if not options.disk_cache:
        os.environ["SGLC_GRAMMAR_CACHE"] = "off"
    model = options.model
    if model is not None and (model == "hash" or model.startswith("hash:")):
        from sglc.backends.hash_model import HashModel

        if options.tp > 1:
            raise LanguageError("SGLC008", f"--tp {options.tp} is not supported for {model}",
                                why="it has no weights to spread", fixes=("leave it out",))
        given = _given(options, "kv_tokens", "context_length", "max_batch_tokens")
        return HashModel(model.partition(":")[2] or options.tokenizer or None,
                         chat_template=template, radix_cache=options.radix_cache,
                         jump_forward=options.jump_forward, policy=options.policy,
                         seed=options.seed or 0, **given)
    from sglc.backends.engine import Engine, on_gpu

    if options.context_length is not None:
        raise LanguageError("SGLC008", "--context-length is not supported",
                            why="the context is the model's own",
                            fixes=("limit max_tokens in requests",))
    given = _given(options, "kv_tokens", "max_batch_tokens", "mem_fraction")
    if not batches and on_gpu(options.device):
        given.setdefault("max_batch_tokens", _SERVED_TOKENS)
    given["tp"] = options.tp
    if options.load_format != "auto":
        given["load_format"] = "auto" if options.load_format == "safetensors" else (
            options.load_format)
    if options.tokenizer is not None and options.tokenizer != model:
        given["tokenizer_path"] = options.tokenizer
    return Engine(model, device=options.device, dtype=options.dtype, chat_template=template,
                  kernels=options.kernels, radix_cache=options.radix_cache,
                  jump_forward=options.jump_forward, policy=options.policy, seed=options.seed,
                  **given)


def _given(options: ServeOptions, *names: str) -> dict[str, Any]:
    return {n: v for n in names if (v := getattr(options, n)) is not None}
