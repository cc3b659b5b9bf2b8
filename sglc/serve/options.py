"""The server's settings: command-line flags, by SGLang's names and ours, and what they mean here.

Flags of SGLang that have no counterpart are refused with the reason, never ignored.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglc.errors import LanguageError

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")

# SGLang's flag -> why it is refused.
REFUSED = {
    "--additional-ports": "the server is one process with one port",
    "--trust-remote-code": "no code is loaded from model folders",
    "--max-prefill-num-token": "prefill goes in chunks: set --max-batch-tokens",
    "--schedule-conservativeness": "memory is kept free by the requests' own bounds",
    "--attention-reduce-in-fp32": "attention always sums in float32",
    "--disable-log-stats": "statistics are at /metrics, not in the log",
    "--log-stats-interval": "statistics are at /metrics, not in the log",
}
_NO_VALUE = ("--trust-remote-code", "--attention-reduce-in-fp32", "--disable-log-stats")

_POSITIVE = ("--stream-interval", "--tp", "--kv-tokens", "--context-length", "--max-batch-tokens",
             "--max-queued-requests", "--request-timeout", "--watchdog-timeout",
             "--max-body-bytes", "--max-image-pixels")
_HEURISTICS = {"lpm": "lpm", "fcfs": "fcfs-lru", "weight": "dfs-weight", "planned": "planned",
               "fcfs-lru": "fcfs-lru", "dfs-weight": "dfs-weight", "vllm-apc": "vllm-apc"}


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `sglc serve` was asked for."""

    model: str | None = None
    tokenizer: str | None = None
    host: str = "127.0.0.1"
    port: int = 30000
    served_model_name: str | None = None
    chat_template: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    tp: int = 1
    kv_tokens: int | None = None
    mem_fraction: float | None = None
    context_length: int | None = None
    load_format: str = "auto"
    kernels: str = "auto"
    policy: str = "planned"
    radix_cache: bool = True
    jump_forward: str = "safe"
    disk_cache: bool = True
    seed: int | None = None
    max_batch_tokens: int | None = None
    api_keys: tuple[str, ...] = ()
    admin_key: str | None = None
    insecure: bool = False
    max_sequences: int = 512
    request_seconds: float = 600.0
    drain_seconds: float = 30.0
    stall_seconds: float = 60.0
    max_body: int | None = None
    fetch_images: bool = False
    max_image_pixels: int = 1 << 24
    stream_interval: int = 1
    restart: bool = False
    log_level: str = "info"
    log_format: str = "text"
    trace_file: str | None = None
    otlp_endpoint: str | None = None


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags of `sglc serve` and `python -m sglc.launch_server`."""
    m = p.add_argument_group("model")
    m.add_argument("--model", "--model-path", metavar="PATH",
                   help="a GGUF file or Hugging Face folder, or hash[:small|:smollm2] for tests "
                   "(default: SmolLM2-135M-Instruct)")
    m.add_argument("--tokenizer-path", "--tokenizer", dest="tokenizer", metavar="PATH",
                   help="where the tokenizer is, if not with the model")
    m.add_argument("--served-model-name", metavar="NAME", help="its name in /v1/models")
    m.add_argument("--chat-template", metavar="NAME|FILE",
                   help="a built-in template, or a JSON file as SGLang takes it, or jinja")
    m.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"),
                   help="float16 is for GPUs")
    m.add_argument("--device", default="auto")
    m.add_argument("--tp", "--tp-size", type=int, default=1, metavar="N",
                   help="GPUs (or processes) to spread the model over")
    m.add_argument("--load-format", default="auto",
                   choices=("auto", "pt", "safetensors", "npcache", "dummy"))
    m.add_argument("--tokenizer-mode", default="auto", choices=("auto", "slow"))
    e = p.add_argument_group("engine")
    e.add_argument("--kv-tokens", type=int, metavar="N", help="size of the KV pool")
    e.add_argument("--mem-fraction-static", type=float, metavar="F",
                   help="share of the memory that weights and KV may take")
    e.add_argument("--context-length", type=int, metavar="N")
    e.add_argument("--max-batch-tokens", type=int, metavar="N",
                   help="new tokens a step (default: 8192 on a GPU, 512 on the CPU)")
    e.add_argument("--schedule-heuristic", "--schedule-policy", "--policy", dest="policy",
                   default="planned", choices=(*_HEURISTICS, "random"))
    e.add_argument("--model-mode", nargs="+", default=[], choices=("flashinfer", "no-cache"))
    e.add_argument("--disable-radix-cache", action="store_true")
    e.add_argument("--disable-regex-jump-forward", action="store_true")
    e.add_argument("--disable-disk-cache", action="store_true")
    e.add_argument("--enable-flashinfer", action="store_true")
    e.add_argument("--kernels", default="auto")
    e.add_argument("--random-seed", type=int, metavar="N")
    e.add_argument("--stream-interval", type=int, default=1, metavar="N",
                   help="pieces of text (about one a token) that make an event of a stream")
    s = p.add_argument_group("serving")
    s.add_argument("--host", default="127.0.0.1")
    s.add_argument("--port", type=int, default=30000, help="0: any free one")
    s.add_argument("--api-key", action="append", default=[], metavar="KEY",
                   help="needed for every route but /health and /ready; better in the "
                   "environment as SGLC_API_KEY, or in a file")
    s.add_argument("--api-key-file", metavar="FILE", help="keys, one a line")
    s.add_argument("--admin-api-key", metavar="KEY", help="needed for /flush_cache "
                   "(or SGLC_ADMIN_API_KEY)")
    s.add_argument("--insecure", action="store_true",
                   help="serve other machines without an API key")
    s.add_argument("--max-queued-requests", dest="max_sequences", type=int, default=512,
                   metavar="N", help="sequences running and waiting; more get 429")
    s.add_argument("--request-timeout", type=float, default=600.0, metavar="S")
    s.add_argument("--shutdown-timeout", type=float, default=30.0, metavar="S")
    s.add_argument("--watchdog-timeout", type=float, default=60.0, metavar="S")
    s.add_argument("--restart", action="store_true",
                   help="serve in a child process, and start it again if it dies")
    s.add_argument("--max-body-bytes", type=int, metavar="N",
                   help="of a request (default: 4 MiB, for models with vision 32 MiB)")
    s.add_argument("--fetch-images", action="store_true",
                   help="fetch images that requests give as URLs, from public addresses only")
    s.add_argument("--max-image-pixels", type=int, default=1 << 24, metavar="N",
                   help="of an image when it is decoded")
    s.add_argument("--log-level", default="info",
                   choices=("debug", "info", "warning", "error", "critical"))
    s.add_argument("--log-format", default="text", choices=("text", "json"))
    s.add_argument("--trace-file", metavar="FILE", help="write Chrome trace events")
    s.add_argument("--otlp-endpoint", metavar="URL",
                   help="an OpenTelemetry collector to report requests to, such as "
                   "http://localhost:4318 (the 'otel' extra)")
    for flag in REFUSED:
        p.add_argument(flag, help=argparse.SUPPRESS, dest="refused", action=_Refuse,
                       nargs=0 if flag in _NO_VALUE else "*")


class _Refuse(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        assert option_string is not None
        flag = next((f for f in REFUSED if f.startswith(option_string)), option_string)
        raise LanguageError("SGLC008", f"{flag} is not supported", why=REFUSED[flag],
                            fixes=("leave it out",))


def parsed(argv: Sequence[str] | None = None) -> ServeOptions:
    """The settings of a command line."""
    parser = argparse.ArgumentParser(prog="python -m sglc.launch_server",
                                     description="Serve a model over HTTP.")
    add_flags(parser)
    return settings(parser.parse_args(argv))


def settings(given: argparse.Namespace) -> ServeOptions:
    """The settings of parsed flags.  Raises LanguageError for what cannot be."""
    if given.enable_flashinfer or "flashinfer" in given.model_mode:
        _check_flashinfer()
    if given.policy == "random":
        raise _refused("--schedule-heuristic random", "an order by chance helps nobody",
                       "use fcfs")
    if given.load_format in ("pt", "npcache"):
        raise _refused(f"--load-format {given.load_format}",
                       "pickled weights can run code when they are read", "use safetensors")
    if given.tokenizer_mode == "slow":
        raise _refused("--tokenizer-mode slow", "there is one tokenizer, and it is fast",
                       "leave it out")
    _check_ranges(given)
    keys = [*given.api_key, *os.environ.get("SGLC_API_KEY", "").split(",")]
    if given.api_key_file is not None:
        try:
            keys += Path(given.api_key_file).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise LanguageError("SGLC001", f"{given.api_key_file} cannot be read",
                                why=str(error)) from None
    keys = [k.strip() for k in keys if k.strip()]
    if given.host not in LOCAL and not keys and not given.insecure:
        raise LanguageError(
            "SGLC008", f"serving on {given.host} without an API key is refused",
            why="whoever reaches the port could use the model",
            fixes=("set SGLC_API_KEY or --api-key", "bind to 127.0.0.1",
                   "--insecure, behind something that checks who calls"))
    return ServeOptions(
        model=given.model, tokenizer=given.tokenizer, host=given.host, port=given.port,
        served_model_name=given.served_model_name, chat_template=given.chat_template,
        dtype=given.dtype, device=given.device, tp=given.tp, kv_tokens=given.kv_tokens,
        mem_fraction=given.mem_fraction_static, context_length=given.context_length,
        load_format=given.load_format, kernels=given.kernels, policy=_HEURISTICS[given.policy],
        radix_cache=not (given.disable_radix_cache or "no-cache" in given.model_mode),
        jump_forward="off" if given.disable_regex_jump_forward else "safe",
        disk_cache=not given.disable_disk_cache, seed=given.random_seed,
        max_batch_tokens=given.max_batch_tokens, api_keys=tuple(keys),
        admin_key=given.admin_api_key or os.environ.get("SGLC_ADMIN_API_KEY") or None,
        insecure=given.insecure, max_sequences=given.max_sequences,
        request_seconds=given.request_timeout, drain_seconds=given.shutdown_timeout,
        stall_seconds=given.watchdog_timeout, max_body=given.max_body_bytes,
        fetch_images=given.fetch_images, max_image_pixels=given.max_image_pixels,
        stream_interval=given.stream_interval, restart=given.restart,
        log_level=given.log_level, log_format=given.log_format, trace_file=given.trace_file,
        otlp_endpoint=given.otlp_endpoint)


def _check_ranges(given: argparse.Namespace) -> None:
    """Raises LanguageError SGLC004 for a number that makes no sense."""
    for flag in _POSITIVE:
        value = getattr(given, flag[2:].replace("-", "_"), None)
        if flag == "--max-queued-requests":
            value = given.max_sequences
        if value is not None and not 0 < value < math.inf:
            raise LanguageError("SGLC004", f"{flag} must be above 0, not {value}")
    if not 0 <= given.port < 65536:
        raise LanguageError("SGLC004", f"--port must be below 65536, not {given.port}")
    if not 0 <= given.shutdown_timeout < math.inf:
        raise LanguageError("SGLC004", "--shutdown-timeout must be a number of seconds, not "
                            f"{given.shutdown_timeout}")


def _check_flashinfer() -> None:
    import importlib.util

    if importlib.util.find_spec("flashinfer") is None:
        raise _refused("--enable-flashinfer", "flashinfer is not installed here",
                       "pip install flashinfer-python on a machine with a GPU",
                       "leave it out: the best kernels that are there are taken by themselves")


def _refused(flag: str, why: str, *fixes: str) -> LanguageError:
    return LanguageError("SGLC008", f"{flag} is not supported", why=why, fixes=fixes)
