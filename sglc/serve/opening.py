"""From settings to a backend and the service around it."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from sglc.errors import LanguageError
from sglc.serve.options import LOCAL, ServeOptions
from sglc.serve.records import Records
from sglc.serve.service import Limits, Service
from sglc.serve.template_file import read_template
from sglc.serve.trace_file import TraceFile


def open_backend(options: ServeOptions) -> Any:
    """The engine that was asked for.  Raises SglcError."""
    template = read_template(options.chat_template)
    if not options.disk_cache:
        os.environ["SGLC_GRAMMAR_CACHE"] = "off"
    model = options.model
    if model is not None and (model == "hash" or model.startswith("hash:")):
        from sglc.backends.hash_model import HashModel

        given = _given(options, "kv_tokens", "context_length", "max_batch_tokens")
        return HashModel(model.partition(":")[2] or options.tokenizer or None,
                         chat_template=template, radix_cache=options.radix_cache,
                         jump_forward=options.jump_forward, policy=options.policy,
                         seed=options.seed or 0, **given)
    from sglc.backends.engine import Engine

    if options.context_length is not None:
        raise LanguageError("SGLC008", "--context-length is not supported",
                            why="the context is the model's own",
                            fixes=("limit max_tokens in requests",))
    if options.tokenizer is not None and options.tokenizer != model:
        raise LanguageError("SGLC008", "--tokenizer-path is not supported for another path",
                            why="the tokenizer is read from the model's file or folder",
                            fixes=("put the tokenizer's files into the model's folder",))
    given = _given(options, "kv_tokens", "max_batch_tokens", "mem_fraction")
    known = inspect.signature(Engine.__init__).parameters
    if options.tp > 1:
        if "tp" not in known:
            raise LanguageError("SGLC008", f"--tp {options.tp} is not supported",
                                why="this engine runs on one device", fixes=("leave it out",))
        given["tp"] = options.tp
    if options.load_format != "auto":
        given["load_format"] = "auto" if options.load_format == "safetensors" else (
            options.load_format)
    return Engine(model, device=options.device, dtype=options.dtype, chat_template=template,
                  kernels=options.kernels, radix_cache=options.radix_cache,
                  jump_forward=options.jump_forward, policy=options.policy, seed=options.seed,
                  **given)


def open_service(options: ServeOptions, backend: Any) -> Service:
    """The service around an open backend."""
    path = str(getattr(backend, "model_path", options.model or "hash"))
    name = options.served_model_name or Path(path).stem or path
    shown = {"policy": options.policy, "radix_cache": options.radix_cache,
             "jump_forward": options.jump_forward, "dtype": options.dtype, "tp": options.tp,
             "kv_tokens": backend.core.kv_tokens, "max_queued_requests": options.max_sequences,
             "host": options.host, "port": options.port}
    local = options.host in LOCAL and not options.api_keys
    return Service(
        backend, name, path,
        Limits(body_bytes=options.max_body, request_seconds=options.request_seconds,
               drain_seconds=options.drain_seconds, stall_seconds=options.stall_seconds,
               sequences=options.max_sequences),
        options.api_keys, options.admin_key, frozenset(LOCAL) if local else None, shown,
        Records(options.log_format),
        None if options.trace_file is None else TraceFile(options.trace_file))


def _given(options: ServeOptions, *names: str) -> dict[str, Any]:
    return {n: v for n in names if (v := getattr(options, n)) is not None}
