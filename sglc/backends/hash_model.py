"""`HashModel`: the whole engine with a hash in place of a network, for exactness tests.

Its next token is a function of the ids that the engine's page table really holds, so a wrong
page, cut, cache hit or reorder changes the text.  No weights, no download.
"""

from __future__ import annotations

from typing import Any

from sglc.backends.local import LocalBackend


class HashModel(LocalBackend):
    """A backend for tests.

    tokenizer: None for bytes, "smollm2" for SmolLM2's BPE, "small" for a small BPE with merges
    across spaces, or a tokenizer object.  Other options as `Engine`.
    """

    def __init__(self, tokenizer: Any = None, *, vocab_size: int | None = None,
                 kv_tokens: int = 65536, radix_cache: bool = True, seed: int = 0,
                 max_batch_tokens: int | None = None, context_length: int | None = None,
                 chat_template: Any = None, jump_forward: str = "safe",
                 policy: str = "planned", ride_tokens: int = 0) -> None:
        from sglc.backends.engine import check_jump_forward
        from sglc.backends.templates import registry
        from sglc.runtime.engine import EngineCore
        from sglc.runtime.hash_model import HashRunner

        check_jump_forward(jump_forward)
        tok = open_tokenizer(tokenizer)
        extra = {} if context_length is None else {"context_length": context_length}
        runner = HashRunner(vocab_size or tok.vocab_size, tok, **extra)
        budget = {} if max_batch_tokens is None else {"max_batch_tokens": max_batch_tokens}
        core = EngineCore(runner, tok, kv_tokens=kv_tokens, radix_cache=radix_cache,
                          jump_forward=jump_forward, policy=policy, ride_tokens=ride_tokens,
                          **budget)
        template = registry.resolve(chat_template, tok)
        super().__init__(core, tok, template, seed=seed)


def open_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer object from None (bytes), "smollm2", "small", or a tokenizer."""
    if tokenizer is None:
        from sglc.tokens.bytes import ByteTokenizer

        return ByteTokenizer()
    if tokenizer == "smollm2":
        from sglc.backends.engine import resolve_model, tokenizer_at

        return tokenizer_at(resolve_model(None))
    if tokenizer == "small":
        from sglc.tokens.small import small_bpe

        return small_bpe()
    if isinstance(tokenizer, str):
        from sglc.tokens.bpe import BpeTokenizer

        return BpeTokenizer.from_json(tokenizer)
    return tokenizer
