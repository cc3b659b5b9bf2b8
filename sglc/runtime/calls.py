"""Model calls on prompt values: what a `gen` and a `select` mean in terms of engine requests.

The eager interpreter and the plan executor both start calls here, so that they agree by
construction on ids, keys, stops and scores.  This module knows prompts and requests, not programs.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from sglc.config import RunOptions
from sglc.errors import EngineError, LanguageError
from sglc.runtime.choice_ids import ChoiceIds
from sglc.runtime.keys import sampling_key, seeded_key
from sglc.runtime.pins import Pin
from sglc.runtime.request import Request, Result, SamplingParams
from sglc.runtime.typed import Reader, TypedText
from sglc.tokens.images import FIRST_ID, place_image
from sglc.tokens.prompt import Prompt
from sglc.tokens.tokenizer import Tokenizer

__all__ = ["place_image"]

Pins = tuple[tuple[Pin, int | None], ...]  # as in `Request`


class Target(Protocol):
    """What model calls run on: a backend, or what passes on to one.

    `calls` starts them; `submit` and `cancel` take what it makes (requests over token ids).
    """

    tokenizer: Tokenizer
    template: Any
    calls: Calls

    def submit(self, requests: Sequence[Request]) -> None: ...

    def cancel(self, requests: Sequence[Request]) -> None: ...


class Calls(Protocol):
    """How prompts of some kind are made and continued, on targets of that kind.

    This module is that of token ids; remote APIs have one of their own.
    """

    def empty_prompt(self, tokenizer: Any) -> Any: ...

    def place_image(self, tokenizer: Any, source: Any) -> Any: ...

    def constraint_for(self, options: RunOptions, tokenizer: Any) -> Any: ...

    def start_gen(self, target: Any, prompt: Any, options: RunOptions, keys: Sequence[int],
                  constraint: Any, done: Callable[[Outcome], None], **hints: Any) -> Call: ...

    def start_select(self, target: Any, prompt: Any, choices: Sequence[str], method: str,
                     done: Callable[[Outcome], None], **hints: Any) -> Call: ...


@dataclass(slots=True)
class Outcome:
    """What a call leaves: the variable's value, what is known about it, and what it adds.

    `ids` (None for a select) and `text` are the generated span, `leftover` the text behind it;
    for a select `text` is the choice.  `held`: the ids at the prompt's end whose place the span
    takes.
    """

    value: Any = None
    meta: Any = None
    ids: tuple[int, ...] | None = None
    text: str = ""
    leftover: str = ""
    held: tuple[int, ...] = ()
    error: BaseException | None = None

    def extend(self, prompt: Prompt) -> Prompt:
        """The prompt that was continued, with what the call added."""
        if self.ids is None:
            return prompt.append(self.text)
        if self.held:
            return prompt.healed(self.held, self.ids, self.text).append(self.leftover)
        return prompt.generated(self.ids, self.text).append(self.leftover)


@dataclass(slots=True, eq=False)
class Call:
    """A call in flight; `requests` can be cancelled."""

    requests: list[Request] = field(default_factory=list)


@lru_cache(maxsize=4096)
def sampling_params(options: RunOptions, template_stop: tuple[str, ...] = ()) -> SamplingParams:
    """Engine parameters for resolved options; the chat template's stops are added."""
    stop = options.stop + tuple(s for s in template_stop if s not in options.stop)
    return SamplingParams(
        max_tokens=options.max_tokens, min_tokens=options.min_tokens,
        temperature=options.temperature, top_p=options.top_p, top_k=options.top_k,
        min_p=options.min_p, frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty, repetition_penalty=options.repetition_penalty,
        ignore_eos=options.ignore_eos, stop=stop, stop_regex=options.stop_regex,
        stop_token_ids=options.stop_token_ids, no_stop_trim=options.no_stop_trim,
        logprobs=options.return_logprob or options.top_logprobs_num > 0,
        top_logprobs=options.top_logprobs_num)


def empty_prompt(tokenizer: Tokenizer) -> Prompt:
    return Prompt.empty(tokenizer)


def constraint_for(options: RunOptions, tokenizer: Tokenizer) -> Any:
    """The compiled constraint of resolved options, or None.  Raises GrammarError."""
    if options.regex is None and options.json_schema is None and options.ebnf is None:
        return None
    from sglc import grammar

    return grammar.compile(regex=options.regex, json_schema=options.json_schema,
                           grammar=options.ebnf, tokenizer=tokenizer)


def gen_keys(options: RunOptions, seed: int, row: int, path: Sequence[int]) -> list[int]:
    """The sampling keys of the gen's `n` samples (unused, and not computed, when greedy)."""
    if options.temperature < 1e-6 or options.top_k == 1:
        return [0] * options.n
    if options.seed is not None:
        return [seeded_key(options.seed, j) for j in range(options.n)]
    return [sampling_key(seed, row, path, j) for j in range(options.n)]


def start_gen(target: Target, prompt: Prompt, options: RunOptions, keys: Sequence[int],
              constraint: Any, done: Callable[[Outcome], None], *, space: int | None = None,
              priority: tuple[int, ...] = (), on_text: Callable[[str], None] | None = None,
              reader: Reader | None = None, bound: int | None = None, pins: Pins = (),
              continues: bool = False, rides: tuple[array, ...] = ()) -> Call:
    """Generate on `prompt` (`options` resolved); `done` is called once, on the engine's thread.

    priority, bound, pins, continues, rides: what the plan knows, see `Request`.

    With `n > 1` value and meta are lists, and the prompt continues with the first sample.  With
    a `reader` the value is a `TypedText`.
    """
    ids = prompt.token_ids()
    params = sampling_params(options, target.template.stop)
    held: tuple[int, ...] = ()
    if options.heal and options.max_tokens > 0:
        from sglc.runtime.healing import held_back  # needs numpy, which compiling does not

        held = held_back(prompt, constraint)
        if held:
            ids = ids[:-len(held)]
            params = replace(params, max_tokens=params.max_tokens + len(held),
                             min_tokens=params.min_tokens and params.min_tokens + len(held))
    from_ = None
    if params.logprobs and options.logprob_start_len >= 0:
        from_ = min(options.logprob_start_len, len(ids))
    call = Call()
    results: list[Result | None] = [None] * len(keys)

    def finish(index: int, result: Result) -> None:
        results[index] = result
        if any(r is None for r in results):
            return
        final = [r for r in results if r is not None]
        for r in final:
            if r.error is not None:
                done(Outcome(error=r.error))
                return
        metas = [gen_meta(r, options, target.tokenizer, ids, from_) for r in final]
        first = final[0]
        kept = first.text[: len(first.text) - len(first.leftover)]
        one = options.n == 1
        texts = [r.text for r in final]
        value: Any = texts[0] if one else texts
        if reader is not None:
            value = TypedText(reader, texts, metas, not one)
        done(Outcome(value, metas[0] if one else metas, first.ids, kept, first.leftover,
                     held if first.ids else ()))

    for j, key in enumerate(keys):
        call.requests.append(Request(
            "generate", ids, (lambda r, j=j: finish(j, r)), params, key, constraint,
            space=space, priority=priority, bound=bound, pins=pins,
            on_text=on_text if j == 0 else None, continues=continues,
            rides=() if held or j else rides, held=held, images=prompt.images,
            want_prompt_logprobs_from=from_))
    target.submit(call.requests)
    return call


def gen_meta(result: Result, options: RunOptions, tokenizer: Tokenizer, prompt_ids: array,
             from_: int | None) -> dict[str, Any]:
    """`get_meta_info` of a gen: SGLang's keys (counts, finish reason, log-probabilities)."""
    reason: dict[str, Any] = {"type": result.finish_reason}
    if result.finish_reason == "stop":
        reason["matched"] = result.matched
    elif result.finish_reason == "eos":
        reason = {"type": "stop", "matched": result.matched}
    elif result.finish_reason == "length":
        reason["length"] = options.max_tokens
    meta: dict[str, Any] = {
        "prompt_tokens": result.prompt_tokens, "completion_tokens": result.output_tokens,
        "cached_tokens": result.cached_tokens, "finish_reason": reason,
    }
    if options.return_logprob or options.top_logprobs_num:
        def entry(lp: float | None, token: int) -> tuple[float | None, int, str | None]:
            named = options.return_text_in_logprobs and token < FIRST_ID
            text = tokenizer.decode([token]) if named else None
            return lp, token, text

        scored = () if from_ is None else prompt_ids[from_:]
        meta["input_token_logprobs"] = [
            entry(lp, t) for lp, t in zip(result.prompt_logprobs, scored, strict=True)]
        meta["output_token_logprobs"] = [
            entry(lp, t) for lp, t in zip(result.logprobs, result.ids, strict=True)]
        if options.top_logprobs_num:
            meta["output_top_logprobs"] = [
                [entry(lp, t) for lp, t in step] for step in result.top_logprobs]
    return meta


def start_select(target: Target, prompt: Prompt, choices: Sequence[str], method: str,
                 done: Callable[[Outcome], None], *, space: int | None = None,
                 priority: tuple[int, ...] = (), pins: Pins = (),
                 ids: ChoiceIds | None = None) -> Call:
    """Score `choices` after `prompt`, in one request; the winner becomes text of its last run.

    ids: of these choices, where they are constant.  Choices known only at run time are checked
    here: empty or equal ones are SGLC005.
    """
    if ids is None:
        if "" in choices or len(set(choices)) != len(choices):
            what = "an empty string" if "" in choices else "the same text twice"
            done(Outcome(error=LanguageError("SGLC005",
                                             f"choices holds {what}: {choices!r}"[:200])))
            return Call()
        ids = ChoiceIds(target.tokenizer, choices)
    base, rows, rides = ids.behind(prompt)
    call = Call()
    wanted = [base]
    if method == "unconditional_likelihood_normalized":
        wanted.append(array("q"))
    results: dict[int, Result] = {}

    def finish(index: int, result: Result) -> None:
        results[index] = result
        if len(results) < len(wanted):
            return
        final = [results[i] for i in range(len(wanted))]
        for r in final:
            if r.error is not None:
                done(Outcome(error=r.error))
                return
        scores = [[[0.0 if lp is None else lp for lp in row] for row in r.choices]
                  for r in final]
        winner, meta = choose(method, scores[0], scores[-1])
        table = target.tokenizer.byte_table
        meta["input_token_logprobs"] = [
            [(lp, t, table[t].decode("utf-8", "replace")) for lp, t in zip(row, x, strict=True)]
            for row, x in zip(scores[0], rows, strict=True)]
        meta["output_token_logprobs"] = [[] for _ in choices]
        done(Outcome(choices[winner], meta, text=choices[winner]))

    for i, before in enumerate(wanted):
        call.requests.append(Request("score", before, (lambda r, i=i: finish(i, r)),
                                     choices=rows, rides=() if i else rides, space=space,
                                     priority=priority, pins=pins,
                                     images=prompt.images))
    target.submit(call.requests)
    return call


def choose(method: str, scores: Sequence[Sequence[float]],
           unconditional: Sequence[Sequence[float]]) -> tuple[int, dict[str, Any]]:
    """The winning index and the meta data of a choices method (SGLang `lang/choices.py`).

    scores: log-probabilities of each choice's scored tokens; unconditional: of the same tokens
    without the prompt, for `unconditional_likelihood_normalized`.  Ties: the first choice.
    """
    means = [_mean(s) for s in scores]
    meta: dict[str, Any] = {"normalized_prompt_logprobs": means}
    if method == "token_length_normalized":
        return _argmax(means), meta
    if method == "greedy_token_selection":
        width = max((len(s) for s in scores), default=0)
        matrix = [list(s) + [m] * (width - len(s)) for s, m in zip(scores, means, strict=True)]
        meta["greedy_logprob_matrix"] = matrix
        left = list(range(len(scores)))
        for j in range(width):
            best = max(matrix[i][j] for i in left)
            left = [i for i in left if matrix[i][j] == best]
            if len(left) == 1:
                break
        return left[0], meta
    if method == "unconditional_likelihood_normalized":
        gains = [_mean([a - b for a, b in zip(c, u, strict=True)])
                 for c, u in zip(scores, unconditional, strict=True)]
        meta["unconditional_token_logprobs"] = [list(u) for u in unconditional]
        meta["normalized_unconditional_prompt_logprobs"] = gains
        return _argmax(gains), meta
    raise EngineError("SGLC004", f"unknown choices method {method!r}")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))
