"""What the runtime tests share: a byte tokenizer, ways to ask an engine, and a reference."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import fields
from types import SimpleNamespace

import pytest

from sglc.runtime.engine import EngineCore
from sglc.runtime.hash_model import HashRunner
from sglc.runtime.request import Request, Result, SamplingParams
from sglc.tokens.tokenizer import Tokenizer
from tests.reference_calls import Run, WholeModel, generate, score


class Bytes(Tokenizer):
    """One token a byte; 256 is EOS, 257 a control token, then some longer tokens."""

    extra = ("é".encode(), b"ab", b"\xc3", b"\xa9x", "\N{GRINNING FACE}".encode(), b"\n\n")

    def __init__(self) -> None:
        self.vocab_size = 258 + len(self.extra)
        self.eos_ids = frozenset([256])
        self.special = {"<eos>": 256, "<ctl>": 257}

    def encode(self, text: str, first: bool = False) -> list[int]:
        return list(text.encode())

    encode_raw = encode

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < 256:
            return bytes([token_id])
        return b"" if token_id < 258 else self.extra[token_id - 258]


TOKENIZER = Bytes()


def engine(tokenizer: Tokenizer = TOKENIZER, **options: object) -> EngineCore:
    runner = HashRunner(tokenizer.vocab_size, tokenizer,
                        context_length=options.pop("context_length", 4096))  # type: ignore
    return EngineCore(runner, tokenizer, **{"kv_tokens": 4096, **options})  # type: ignore


def request(ids: Sequence[int] | str, kind: str = "generate", *, score_from: int = 0,
            key: int = 0, **options: object) -> Request:
    """A request without a callback (`ask` sets it); options are its own or of sampling."""
    if isinstance(ids, str):
        ids = list(ids.encode())
    own = {name: options.pop(name) for name in
           ("constraint", "space", "priority", "bound", "pins", "on_text",
            "want_prompt_logprobs_from")
           if name in options}
    return Request(kind, array("q", ids), lambda result: None,  # type: ignore[arg-type]
                   SamplingParams(**options), key, score_from=score_from,  # type: ignore
                   **own)  # type: ignore[arg-type]


class Pending:
    """Answers of requests that were submitted together."""

    def __init__(self, core: EngineCore, requests: Sequence[Request]) -> None:
        self.results: list[Result | None] = [None] * len(requests)
        self.calls = 0
        self._left = threading.Semaphore(0)
        for i, asked in enumerate(requests):
            asked.on_done = self._taker(i)
        core.submit(requests)

    def _taker(self, i: int):  # type: ignore[no-untyped-def]
        def take(result: Result) -> None:
            assert self.results[i] is None, "answered twice"
            self.results[i] = result
            self._left.release()
        return take

    def wait(self, timeout: float = 20) -> list[Result]:
        for _ in self.results:
            assert self._left.acquire(timeout=timeout), "the engine hangs"
        return self.results  # type: ignore[return-value]


def ask(core: EngineCore, requests: Sequence[Request]) -> list[Result]:
    return Pending(core, requests).wait()


def reference(asked: Request, context_length: int = 4096) -> Result:
    """The answer of `tests/reference_calls.py`: no cache, no batch, the whole sequence anew for
    every token, its own sampler and stops."""
    tok, ids = TOKENIZER, list(asked.ids)
    run = Run(WholeModel(HashRunner(tok.vocab_size, tok)), tok, None, None, 0, 0)  # type: ignore
    out = Result(prompt_tokens=len(ids))
    if asked.kind == "score":
        out.logprobs = tuple(score(run, ids, asked.score_from))
    elif asked.kind == "generate":
        params = {field.name: getattr(asked.sampling, field.name)
                  for field in fields(SamplingParams)}
        params["max_tokens"] = min(params["max_tokens"], context_length - len(ids))
        made = generate(run, ids, SimpleNamespace(  # type: ignore[arg-type]
            **params, regex=None, json_schema=None, ebnf=None), asked.key)
        out.ids, out.leftover = made.ids, made.leftover
        out.text = tok.decode(made.ids) + made.leftover
        out.matched = made.finish.get("matched")
        out.finish_reason = made.finish["type"]
        if out.matched in tok.eos_ids and out.matched not in asked.sampling.stop_token_ids:
            out.finish_reason = "eos"
    return out


def agree(asked: Request, got: Result, context_length: int = 4096) -> None:
    """Assert that an engine's answer is the reference's."""
    want = reference(asked, context_length)
    assert got.error is None, got.error
    if asked.kind == "score":
        assert len(got.logprobs) == len(want.logprobs)
        for p, (a, b) in enumerate(zip(got.logprobs, want.logprobs, strict=True)):
            if p == 0 and asked.score_from == 0:
                assert a is None
            else:
                assert a == pytest.approx(b, abs=1e-4)
        return
    assert (got.ids, got.text, got.leftover) == (want.ids, want.text, want.leftover)
    if asked.kind == "generate":
        assert (got.finish_reason, got.matched) == (want.finish_reason, want.matched)
