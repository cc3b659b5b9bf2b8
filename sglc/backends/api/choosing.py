"""`select` on text completion APIs: by log-probabilities of the prompt, or by biased tokens.

"echo" scores every choice as a local engine does: its log-probabilities as part of the prompt.
"logit_bias" is SGLang's way where the API echoes none: token by token, with the bias on the next
token of every choice that is still possible; the choice that agrees with most tokens wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sglc.backends.api.asking import Choice, api_error
from sglc.errors import CapabilityError
from sglc.runtime import calls

WAYS = ("echo", "logit_bias")
BIAS = 100  # the most that OpenAI takes

Encode = Callable[[str], Sequence[int]]


async def by_echo(client: Any, model: str, name: str, text: str, choices: tuple[str, ...],
                  method: str) -> Choice:
    """One call with every choice (two for the unconditional method)."""
    total = Choice(0, {}, 0)
    base, *rows = await _echo(client, model, name, [text, *[text + c for c in choices]], total)
    start = _common([[t for t, _ in row] for row in (base, *rows)])
    scored = [row[start:] for row in rows]
    unconditional: list[list[float]] = []
    if method == "unconditional_likelihood_normalized":
        alone = await _echo(client, model, name, ["".join([t for t, _ in s]) for s in scored],
                            total)
        if any([t for t, _ in a] != [t for t, _ in s] for a, s in zip(alone, scored, strict=True)):
            raise CapabilityError("SGLC012", f"{name} cannot score a choice without its prompt",
                                  why="its tokens are other ones there",
                                  fixes=("leave out choices_method=",))
        unconditional = [[lp or 0.0 for _, lp in row] for row in alone]
    total.index, total.meta = calls.choose(
        method, [[lp or 0.0 for _, lp in row] for row in scored], unconditional)
    total.meta["input_token_logprobs"] = [[(lp, None, t) for t, lp in row] for row in scored]
    total.meta["output_token_logprobs"] = [[] for _ in choices]
    return total


async def _echo(client: Any, model: str, name: str, texts: list[str],
                total: Choice) -> list[list[tuple[str, float | None]]]:
    """(text, log-probability) of the tokens of each text."""
    known = [t for t in texts if t]
    found = await client.completions.create(model=model, prompt=known, max_tokens=0, echo=True,
                                            logprobs=1, temperature=0)
    total.calls += 1
    if found.usage is not None:
        total.prompt_tokens += found.usage.prompt_tokens or 0
        total.output_tokens += found.usage.completion_tokens or 0
    rows = {}
    for choice in found.choices:
        if choice.logprobs is None or not choice.logprobs.token_logprobs:
            raise CapabilityError("SGLC012", f"the server of {name} has no select",
                                  why="it gives no log-probabilities of a prompt (echo=True)",
                                  fixes=('give select_by="logit_bias"',))
        rows[choice.index] = list(zip(choice.logprobs.tokens, choice.logprobs.token_logprobs,
                                      strict=True))
    if sorted(rows) != list(range(len(known))):
        raise api_error(f"{name} scored {len(rows)} of {len(known)} texts")
    ordered = iter([_only(rows[i], text) for i, text in enumerate(known)])
    return [next(ordered) if text else [] for text in texts]


def _only(row: list[tuple[str, float | None]], text: str) -> list[tuple[str, float | None]]:
    """The tokens of the prompt: some servers write at least one of their own behind it."""
    out, at = [], 0
    for token, logprob in row:
        if at >= len(text):
            break
        out.append((token, logprob))
        at += len(token)
    return out


def _common(rows: list[list[str]]) -> int:
    n = min(map(len, rows))
    return next((i for i in range(n) if len({row[i] for row in rows}) > 1), n)


async def by_logit_bias(client: Any, model: str, name: str, text: str, choices: tuple[str, ...],
                        method: str, encode: Encode) -> Choice:
    """One call a token, until one choice is left."""
    if method != "token_length_normalized":
        raise CapabilityError("SGLC012", f"{name} has no choices_method {method}",
                              why="it gives no log-probabilities of a prompt",
                              fixes=("leave out choices_method=",))
    ids = [list(encode(c)) for c in choices]
    agreed = [0] * len(choices)
    possible = list(range(len(choices)))
    total = Choice(0, {}, 0)
    step = 0
    while possible:
        # Where one choice has come to its end and others go on, the model decides unbiased.
        ended = any(len(x) == step == agreed[i] for i, x in enumerate(ids)) and step > 0
        bias = {} if ended else {str(ids[i][step]): BIAS for i in possible}
        found = await client.completions.create(model=model, prompt=text, logit_bias=bias,
                                                max_tokens=1, temperature=0)
        total.calls += 1
        if found.usage is not None:
            total.prompt_tokens += found.usage.prompt_tokens or 0
            total.output_tokens += found.usage.completion_tokens or 0
        written = list(encode(found.choices[0].text or ""))[:1]
        possible = [i for i in possible if ids[i][step:step + 1] == written]
        for i in possible:
            agreed[i] += 1
        text += found.choices[0].text or ""
        step += 1
        possible = [i for i in possible if len(ids[i]) > step]
        if len(possible) == 1 and agreed.count(step) == 1:
            break
    total.index = max(range(len(choices)), key=lambda i: (agreed[i], -i))
    total.meta = {"scores": agreed}
    return total


def tiktoken_encoder(model: str) -> Encode:
    """The model's tokenizer; CapabilityError SGLC012 without tiktoken."""
    try:
        import tiktoken
    except ImportError:
        raise CapabilityError("SGLC012", "select on OpenAI's completion models needs a tokenizer",
                              fixes=("pip install tiktoken", "give tokenizer=: text -> ids")
                              ) from None
    try:
        return tiktoken.encoding_for_model(model).encode  # type: ignore[no-any-return]
    except KeyError:
        raise CapabilityError("SGLC012", f"tiktoken knows no tokenizer of {model!r}",
                              fixes=("give tokenizer=: text -> ids",)) from None
