"""From settings to the service around an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sglc.serve.options import LOCAL, ServeOptions
from sglc.serve.pictures import PictureLimits
from sglc.serve.records import Records
from sglc.serve.service import Limits, Service
from sglc.serve.telemetry import exporting
from sglc.serve.trace_file import TraceFile

_BODY, _BODY_WITH_IMAGES = 4 << 20, 32 << 20


def open_service(options: ServeOptions, backend: Any) -> Service:
    """The service around an open backend."""
    path = str(getattr(backend, "model_path", options.model or "hash"))
    name = options.served_model_name or Path(path).stem or path
    shown = {"policy": options.policy, "radix_cache": options.radix_cache,
             "jump_forward": options.jump_forward, "dtype": options.dtype, "tp": options.tp,
             "kv_tokens": backend.core.kv_tokens, "max_queued_requests": options.max_sequences,
             "host": options.host, "port": options.port}
    vision = getattr(backend.tokenizer, "images", None) is not None
    body = options.max_body or (_BODY_WITH_IMAGES if vision else _BODY)
    local = options.host in LOCAL and not options.api_keys
    return Service(
        backend, name, path,
        Limits(body_bytes=body, request_seconds=options.request_seconds,
               drain_seconds=options.drain_seconds, stall_seconds=options.stall_seconds,
               sequences=options.max_sequences, pictures=PictureLimits(
                   pixels=options.max_image_pixels, fetch=options.fetch_images)),
        options.api_keys, options.admin_key, frozenset(LOCAL) if local else None, shown,
        Records(options.log_format),
        None if options.trace_file is None else TraceFile(options.trace_file),
        options.stream_interval,
        None if options.otlp_endpoint is None else exporting(
            name, options.host, options.otlp_endpoint))
