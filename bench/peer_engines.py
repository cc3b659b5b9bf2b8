"""sglc, vLLM and SGLang behind one face, for batches of ids.  A peer is imported when it is opened.

Tested with vLLM 0.23 and SGLang 0.5.16.  What both settings share: dummy weights, greedy, prefix
caching on, 16384 tokens of context, 85 % of memory.  "tuned" adds what suits these workloads.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Protocol

CONTEXT, MEMORY = 16384, 0.85
TUNED: dict[str, dict[str, Any]] = {
    "sglc": {},
    "vllm": {"disable_cascade_attn": False},
    "sglang": {"schedule_policy": "lpm", "cuda_graph_max_bs_decode": 512},
}
"""What "tuned" adds.  vLLM has 1024 sequences, 16384 tokens a step and graphs to 512 by itself,
SGLang graphs to 256."""

_SGLANG = {"load_format": "dummy", "context_length": CONTEXT, "mem_fraction_static": MEMORY,
           "sampling_backend": "pytorch", "log_level": "error", "random_seed": 0}


class Absent(Exception):
    """A peer that is not installed here; the text says what is missing."""


class BatchEngine(Protocol):
    """An open engine."""

    version: str

    def generate(self, prompts: list[list[int]], new: int, regex: str | None) -> int:
        """Continue all, greedy, to `new` tokens (EOS ignored) or to the regex's end; how many
        tokens were written."""

    def flush(self) -> None:
        """Forget what is cached."""

    def close(self) -> None: ...


class Sglc:
    """sglc; the model "hash" needs no GPU."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        import sglc

        self.version = sglc.__version__
        self.engine: Any
        if model == "hash":
            from sglc.backends.hash_model import HashModel

            self.engine = HashModel(**{"kv_tokens": 1 << 20, "vocab_size": 49152, **options})
        else:
            self.engine = sglc.Engine(model, **{"device": "cuda", "load_format": "dummy",
                                                **options})

    def generate(self, prompts: list[list[int]], new: int, regex: str | None) -> int:
        sampling = {"temperature": 0.0, "max_new_tokens": new, "ignore_eos": regex is None}
        if regex:
            sampling["regex"] = regex
        out = self.engine.generate(input_ids=prompts, sampling=sampling)
        return sum([len(o.ids) for o in out])

    def flush(self) -> None:
        self.engine.flush_cache()

    def close(self) -> None:
        self.engine.close()


class Vllm:
    """vLLM's offline engine."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        try:
            import vllm
        except ImportError as e:
            raise Absent(str(e)) from e
        self.version = vllm.__version__
        self.engine = vllm.LLM(
            model=model, load_format="dummy", max_model_len=CONTEXT, seed=0,
            gpu_memory_utilization=MEMORY, enable_prefix_caching=True, disable_log_stats=True,
            **options)

    def generate(self, prompts: list[list[int]], new: int, regex: str | None) -> int:
        from vllm import SamplingParams

        more: dict[str, Any] = {}
        if regex:
            from vllm.sampling_params import StructuredOutputsParams

            more["structured_outputs"] = StructuredOutputsParams(regex=regex)
        sampling = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=not regex,
                                  detokenize=bool(regex), **more)
        out = self.engine.generate([{"prompt_token_ids": p} for p in prompts], sampling,
                                   use_tqdm=False)
        return sum([len(o.outputs[0].token_ids) for o in out])

    def flush(self) -> None:
        self.engine.reset_prefix_cache()

    def close(self) -> None:
        del self.engine


class Sglang:
    """SGLang's engine in this process (its scheduler has one of its own)."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        try:
            import sglang
        except ImportError as e:
            raise Absent(str(e)) from e
        self.version = sglang.__version__
        self.engine = sglang.Engine(model_path=model, grammar_backend="xgrammar",
                                    **{**_SGLANG, **options})

    def generate(self, prompts: list[list[int]], new: int, regex: str | None) -> int:
        sampling: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": new,
                                    "ignore_eos": not regex}
        if regex:
            sampling["regex"] = regex
        out = self.engine.generate(input_ids=prompts, sampling_params=sampling)
        return sum([o["meta_info"]["completion_tokens"] for o in out])

    def flush(self) -> None:
        self.engine.flush_cache()

    def close(self) -> None:
        self.engine.shutdown()


ENGINES = ("sglc", "vllm", "sglang")


def options_of(name: str, tuned: bool, given: dict[str, Any]) -> dict[str, Any]:
    """What an engine is opened with, beyond what all have."""
    return {**(TUNED[name] if tuned else {}), **given}


def open_engine(name: str, model: str, options: dict[str, Any]) -> BatchEngine:
    """The engine.  Raises Absent where it is not installed."""
    made: dict[str, Any] = {"sglc": Sglc, "vllm": Vllm, "sglang": Sglang}
    engine: BatchEngine = made[name](model, options)
    return engine


def server_command(model: str, port: int, options: dict[str, Any]) -> list[str]:
    """How SGLang's server is started, with the same options as `Sglang`."""
    words = [sys.executable, "-m", "sglang.launch_server", "--model-path", model, "--port",
             str(port)]
    for name, value in {**_SGLANG, **options}.items():
        flag = "--" + name.replace("_", "-")
        words += [flag] if value is True else [flag, _word(value)]
    return words


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
