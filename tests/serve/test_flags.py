"""Every flag of SGLang's `launch_server`: mapped to a setting, or refused with the reason."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from sglc.errors import SglcError
from sglc.serve.engines import open_backend
from sglc.serve.options import ServeOptions, add_flags, parsed

# As in SGLang's server_args.py of February 2024 (0.1.12, and what 0.1.13 adds): the arguments,
# and the setting that they come to, or None where they are refused.
SGLANG: list[tuple[str, tuple[str, Any] | None]] = [
    ("--model-path x", ("model", "x")), ("--tokenizer-path y", ("tokenizer", "y")),
    ("--host 127.0.0.1", ("host", "127.0.0.1")), ("--port 30001", ("port", 30001)),
    ("--additional-ports 1 2 3", None),
    ("--load-format auto", ("load_format", "auto")), ("--load-format pt", None),
    ("--load-format safetensors", ("load_format", "safetensors")),
    ("--load-format npcache", None), ("--load-format dummy", ("load_format", "dummy")),
    ("--tokenizer-mode auto", ("tokenizer", None)), ("--tokenizer-mode slow", None),
    ("--chat-template llama-2", ("chat_template", "llama-2")),
    ("--chat-template ./my_model_template.json", ("chat_template", "./my_model_template.json")),
    ("--trust-remote-code", None),
    ("--mem-fraction-static 0.7", ("mem_fraction", 0.7)), ("--max-prefill-num-token 5", None),
    ("--tp-size 2", ("tp", 2)), ("--tp 2", ("tp", 2)),
    ("--model-mode flashinfer", None), ("--model-mode no-cache", ("radix_cache", False)),
    ("--schedule-heuristic lpm", ("policy", "lpm")),
    ("--schedule-heuristic weight", ("policy", "dfs-weight")),
    ("--schedule-heuristic random", None),
    ("--schedule-heuristic fcfs", ("policy", "fcfs-lru")),
    ("--schedule-conservativeness 0.3", None), ("--random-seed 42", ("seed", 42)),
    ("--stream-interval 8", ("stream_interval", 8)), ("--log-level error", ("log_level", "error")),
    ("--disable-log-stats", None), ("--log-stats-interval 10", None),
    ("--disable-regex-jump-forward", ("jump_forward", "off")),
    ("--disable-disk-cache", ("disk_cache", False)),
    ("--context-length 100", ("context_length", 100)), ("--attention-reduce-in-fp32", None),
    ("--disable-radix-cache", ("radix_cache", False)), ("--enable-flashinfer", None),
    ("--api-key k", ("api_keys", ("k",))),
]
# Later names and flags of this server's own.
OURS = [
    ("", ("host", "127.0.0.1")), ("", ("port", 30000)), ("--model x", ("model", "x")),
    ("--host 0.0.0.0 --api-key k", ("host", "0.0.0.0")),
    ("--host 0.0.0.0 --insecure", ("host", "0.0.0.0")),
    ("--api-key a --api-key b", ("api_keys", ("a", "b"))),
    ("--admin-api-key a", ("admin_key", "a")), ("--schedule-policy fcfs", ("policy", "fcfs-lru")),
    ("--served-model-name n", ("served_model_name", "n")), ("--dtype float32",
                                                            ("dtype", "float32")),
    ("--device cpu", ("device", "cpu")), ("--kv-tokens 100", ("kv_tokens", 100)),
    ("--max-batch-tokens 64", ("max_batch_tokens", 64)), ("--kernels torch", ("kernels", "torch")),
    ("--max-queued-requests 9", ("max_sequences", 9)), ("--request-timeout 5",
                                                        ("request_seconds", 5.0)),
    ("--shutdown-timeout 5", ("drain_seconds", 5.0)), ("--watchdog-timeout 5",
                                                       ("stall_seconds", 5.0)),
    ("--max-body-bytes 5", ("max_body", 5)), ("--log-format json", ("log_format", "json")),
    ("--trace-file t", ("trace_file", "t")), ("--otlp-endpoint u", ("otlp_endpoint", "u")),
    ("--restart", ("restart", True)), ("--fetch-images", ("fetch_images", True)),
    ("--max-image-pixels 9", ("max_image_pixels", 9)), ("", ("fetch_images", False)),
]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SGLC_API_KEY", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.parametrize(("argv", "setting"), [*SGLANG, *OURS])
def test_a_flag(argv: str, setting: tuple[str, Any] | None) -> None:
    if setting is not None:
        assert getattr(parsed(argv.split()), setting[0]) == setting[1]
        return
    with pytest.raises(SglcError) as found:
        parsed(argv.split())
    assert found.value.diagnostic.why and found.value.diagnostic.code == "SGLC008"


def test_no_flag_is_left_out() -> None:
    """The tables above have all flags that there are, by one of their names."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    named = {word for argv, _ in [*SGLANG, *OURS] for word in argv.split() if word[:2] == "--"}
    for action in parser._actions:
        names = set(action.option_strings)
        assert names & (named | {"--help", "--api-key-file"}), names


def test_other_machines_are_served_with_a_key_only(tmp_path: Path) -> None:
    with pytest.raises(SglcError, match="without an API key"):
        parsed(["--host", "0.0.0.0"])
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    assert parsed(["--host", "0.0.0.0", "--api-key-file", str(keys)]).api_keys == ("one", "two")
    with pytest.raises(SglcError):
        parsed(["--api-key-file", str(tmp_path / "none")])


@pytest.mark.parametrize("argv", [
    "--stream-interval 0", "--port 70000", "--port -1", "--tp 0", "--kv-tokens -1",
    "--context-length 0", "--max-batch-tokens 0", "--max-queued-requests 0",
    "--request-timeout nan", "--request-timeout 0", "--shutdown-timeout -1",
    "--shutdown-timeout inf", "--watchdog-timeout 0", "--max-body-bytes 0",
    "--max-image-pixels 0"])
def test_values_out_of_range(argv: str) -> None:
    with pytest.raises(SglcError):
        parsed(argv.split())


def test_settings_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not said is the engine's own default."""
    asked: dict[str, Any] = {}

    def engine(self: Any, model: Any = None, **given: Any) -> None:
        asked.update(given, model=model)

    monkeypatch.setattr("sglc.backends.engine.Engine.__init__", engine)
    open_backend(ServeOptions(model="m", mem_fraction=0.7, kv_tokens=50, jump_forward="off",
                              radix_cache=False, policy="lpm", seed=3, load_format="dummy",
                              dtype="float32", device="cpu", max_batch_tokens=9, tp=2,
                              tokenizer="t"))
    assert asked == {"model": "m", "mem_fraction": 0.7, "kv_tokens": 50, "jump_forward": "off",
                     "radix_cache": False, "policy": "lpm", "seed": 3, "load_format": "dummy",
                     "dtype": "float32", "device": "cpu", "max_batch_tokens": 9, "tp": 2,
                     "kernels": "auto", "chat_template": None, "tokenizer_path": "t"}
    with pytest.raises(SglcError, match="context-length"):
        open_backend(ServeOptions(model="m", context_length=5))


@pytest.mark.parametrize("gpu", [False, True])
def test_steps_are_shorter_while_others_wait(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    """On a GPU, where a server's clients wait for single tokens; not for a file of requests."""
    asked: list[Any] = []

    def engine(self: Any, model: Any = None, **given: Any) -> None:
        asked.append(given.get("max_batch_tokens"))

    monkeypatch.setattr("sglc.backends.engine.Engine.__init__", engine)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    open_backend(ServeOptions(model="m"))
    open_backend(ServeOptions(model="m"), batches=True)
    open_backend(ServeOptions(model="m", max_batch_tokens=20_000))
    open_backend(ServeOptions(model="m", device="cpu"))
    assert asked == [8192 if gpu else None, None, 20_000, None]
