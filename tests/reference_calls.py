"""What prompts are in tokens and what a gen and a select choose, as plainly as it can be said.

A prompt is a list of spans; the model is only `logits(ids) -> float32 of the next token`, asked
anew with the whole sequence for every token.  Used by `reference.py`; knows no programs.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sglc.config import RunOptions
from sglc.runtime.batch import Batch, Row
from tests.reference_jump import dictated

Span = str | int | tuple[int, ...]  # text, a control token, generated ids


def encode(tok: Any, spans: Sequence[Span]) -> list[int]:
    """BOS if the tokenizer adds one, each run of texts encoded whole, other spans as they are."""
    ids, run, first = [] if tok.bos_id is None else [tok.bos_id], "", True
    for span in (*spans, ()):
        if isinstance(span, str):
            run += span
            continue
        ids += tok.encode(run, first) if run else []
        ids += span if isinstance(span, tuple) else (span,)
        run, first = "", False
    return ids


def text_of(tok: Any, spans: Sequence[Span]) -> str:
    """The spans' text; control tokens have none."""
    return "".join(x if isinstance(x, str) else tok.decode(x) if isinstance(x, tuple) else ""
                   for x in spans)


@dataclass(frozen=True)
class Run:
    """What all states of one run share.  `model.logits(ids)` gives the next token's logits."""

    model: Any
    tokenizer: Any
    template: Any
    options: RunOptions
    seed: int
    row: int


class WholeModel:
    """`logits(ids)` of a `Runner` (not an engine's): the whole sequence, in a new pool."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner

    def logits(self, ids: list[int]) -> np.ndarray:
        self.runner.allocate(len(ids))
        at = np.arange(len(ids))
        batch = Batch(np.array(ids), at, at, [Row(0, len(ids), at)], at[-1:])
        return np.asarray(self.runner.logits(self.runner.forward(batch)), np.float32)[0]


def philox(counter: Sequence[Any], key: int) -> list[np.ndarray]:
    """Philox-4x32-10 (Salmon et al., SC 2011): four 32-bit counter words to four random ones."""
    low = 0xFFFFFFFF
    c, k0, k1 = [np.asarray(x, np.uint64) for x in counter], key & low, key >> 32
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> 32) ^ c[1] ^ k0, b & low, (a >> 32) ^ c[3] ^ k1, a & low]
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c


def gumbel(key: int, index: int, vocab: int) -> np.ndarray:
    """A Gumbel variable for each vocabulary id, for the token at `index` of a generation."""
    blocks = np.arange((vocab + 3) // 4)
    words = np.stack(philox([blocks * 0 + index, blocks, blocks * 0, blocks * 0], key), 1)
    return -np.log(-np.log((words.reshape(-1)[:vocab] + 0.5) * 2.0**-32))


def choose(logits: np.ndarray, allowed: np.ndarray, prompt: list[int], out: list[int],
           p: RunOptions, key: int) -> int:
    """The next token: mask, penalties, temperature, top_k, top_p, min_p, then Gumbel-max."""
    x = np.where(allowed, np.asarray(logits[:len(allowed)], np.float64), -np.inf)
    seen = sorted({*prompt, *out})
    x[seen] = np.where(x[seen] > 0, x[seen] / p.repetition_penalty, x[seen] * p.repetition_penalty)
    for token, count in Counter(out).items():
        x[token] -= p.frequency_penalty * count + p.presence_penalty
    if p.temperature < 1e-6 or p.top_k == 1:
        return int(np.argmax(x))  # ties: the lowest id
    x /= p.temperature
    best = np.argsort(-x, kind="stable")[:allowed.sum()]
    best = best[:p.top_k] if p.top_k > 0 else best
    mass = np.exp(x[best] - x[best[0]])
    mass /= mass.sum()
    nucleus = (np.cumsum(mass) - mass < p.top_p) | (p.top_p >= 1)
    kept = np.sort(best[nucleus & (mass >= p.min_p * mass[0])])
    return int(kept[np.argmax((x + gumbel(key, len(out), len(x)))[kept])])


def utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


class Generation(NamedTuple):
    ids: tuple[int, ...]  # the generated span
    leftover: str  # text between its last token and the stop
    finish: dict[str, Any]  # why it ended, as in SGLang's meta info


def find_stop(tok: Any, out: list[int], p: RunOptions) -> Generation | None:
    """What is left of `out` if the earliest stop in it, if any, ends it.

    A character counts once it is complete.  Trimming drops tokens that reach into the stop, and
    those that would leave half a character before it.
    """
    raw = tok.decode_bytes(out)
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(raw)
    hits = [(at, s) for s in p.stop if (at := text.find(s)) >= 0]
    hits += [(m.start(), m[0]) for r in p.stop_regex for m in re.finditer(r, text) if m[0]]
    if not hits:
        return None
    start, matched = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
    finish = {"type": "stop", "matched": matched}
    if p.no_stop_trim:
        return Generation(tuple(out), "", finish)
    end = max(b for b in range(len(raw) + 1) if utf8(raw[:b]) == text[:start])
    ends = [len(tok.decode_bytes(out[:n])) for n in range(len(out) + 1)]
    kept = max(n for n, cut in enumerate(ends)
               if cut <= end and utf8(raw[:cut]) + utf8(raw[cut:end]) == text[:start])
    return Generation(tuple(out[:kept]), utf8(raw[ends[kept]:end]), finish)


def generate(run: Run, prompt: list[int], p: RunOptions, key: int) -> Generation:
    tok = run.tokenizer
    constraint = None
    if (p.regex, p.json_schema, p.ebnf) != (None, None, None):
        from sglc import grammar

        constraint = grammar.compile(regex=p.regex, json_schema=p.json_schema, grammar=p.ebnf,
                                     tokenizer=tok)
    state = None if constraint is None else constraint.start()
    ends = tok.eos_ids | set(p.stop_token_ids)
    never = sorted(tok.special_ids - ends)
    out: list[int] = []
    ahead: list[int] | None = []  # dictated tokens; None after the last of them
    while True:
        allowed = np.ones(tok.vocab_size, bool)
        if constraint is not None:
            words = np.ascontiguousarray(constraint.mask(state)).view(np.uint8)
            allowed = np.unpackbits(words, bitorder="little")[:tok.vocab_size].astype(bool)
            if p.max_tokens and tok.eos_ids.issuperset(np.flatnonzero(allowed).tolist()):
                return Generation(tuple(out), "", {"type": "constraint"})
        if len(out) >= p.max_tokens:
            return Generation(tuple(out), "", {"type": "length", "length": p.max_tokens})
        if constraint is not None and ahead == []:
            ahead = dictated(tok, constraint, state, out)
        if ahead:
            allowed = np.arange(tok.vocab_size) == ahead[0]
        allowed[never] = False
        going_on = allowed & ~np.isin(np.arange(tok.vocab_size), sorted(ends))
        if len(out) < p.min_tokens and going_on.any():
            allowed = going_on
        token = choose(run.model.logits(prompt + out), allowed, prompt, out, p, key)
        ignored = p.ignore_eos and constraint is None and token not in p.stop_token_ids
        if token in ends and not ignored:
            return Generation(tuple(out), "", {"type": "stop", "matched": token})
        out.append(token)
        ahead = (ahead[1:] or None) if ahead else []
        state = None if constraint is None else constraint.advance(state, token)
        if stopped := find_stop(tok, out, p):
            return stopped


def score(run: Run, ids: list[int], start: int) -> list[float]:
    """Log-probabilities of `ids[start:]`, each given all before it; 0.0 for position 0."""
    scores = [0.0] if start == 0 else []
    for i in range(max(start, 1), len(ids)):
        x = np.asarray(run.model.logits(ids[:i]), np.float64)
        scores.append(float(x[ids[i]] - x.max() - np.log(np.exp(x - x.max()).sum())))
    return scores


def pick(run: Run, prompt: list[int], choices: list[list[int]],
         method: str) -> tuple[int, dict[str, Any]]:
    """The index of the winner (ties: the first) and its scores.

    `choices` are the ids of prompt and choice, encoded together.  Source of the three methods:
    SGLang's `choices.py`.
    """
    columns = zip(prompt, *choices, strict=False)  # up to the shortest
    start = next((i for i, column in enumerate(columns) if len(set(column)) > 1),
                 min(map(len, (prompt, *choices))))
    scores = [score(run, ids, start) for ids in choices]
    means = [float(np.mean(s)) for s in scores]
    meta: dict[str, Any] = {"normalized_prompt_logprobs": means}
    if method == "unconditional_likelihood_normalized":
        alone = [score(run, ids[start:], 0) for ids in choices]
        means = [float(np.mean(np.subtract(s, u))) for s, u in zip(scores, alone, strict=True)]
        meta["normalized_unconditional_prompt_logprobs"] = means
    elif method == "greedy_token_selection":
        width = max(map(len, scores))
        rows = [s + [m] * (width - len(s)) for s, m in zip(scores, means, strict=True)]
        meta["greedy_logprob_matrix"] = rows
        left = list(range(len(rows)))
        for j in range(width):
            best = max(rows[i][j] for i in left)
            left = [i for i in left if rows[i][j] == best]
        return left[0], meta
    return int(np.argmax(means)), meta
