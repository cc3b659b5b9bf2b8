"""What a finished sequence answers to its request: text, finish reason, log-probabilities.

How the sequence came there is not known here; several choices are put together elsewhere
(`choices.py`).
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING

from sglc.runtime.request import Result
from sglc.tokens.images import FIRST_ID

if TYPE_CHECKING:
    from sglc.runtime.sequence import Sequence


def result_of(seq: Sequence, table: Ids[bytes]) -> Result:
    """The answer to the request of a sequence.  `table`: token id -> bytes."""
    request = seq.request
    prompt = seq.prompt_len
    out = Result(prompt_tokens=prompt, started=seq.started)
    out.cached_tokens = max(0, min(seq.target, prompt) - seq.computed)
    out.output_tokens = seq.count
    out.finish_reason = seq.reason
    if seq.error is not None:
        out.error = seq.error
        return out
    out.matched = seq.matched
    if request.kind == "score":
        first = len(request.ids) if request.choices else request.score_from
        out.logprobs = _scored(seq, first)
    elif request.kind == "generate":
        kept = tuple(seq.ids[prompt:])
        if seq.match is not None:
            kept = kept[:seq.match.kept]
            out.leftover = seq.match.leftover
        data, skip = _spell(kept, table), len(_spell(request.held, table))
        if len(data) < skip:
            kept, data = (), b""
        out.ids = kept
        text = data[skip:].decode("utf-8", "replace")
        out.text = text + out.leftover
        if seq.reports:
            reports = seq.reports[:len(kept)]
            out.logprobs = tuple([report[0] for report in reports])
            if request.sampling.top_logprobs > 0:
                out.top_logprobs = tuple([report[1] for report in reports])
        if request.want_prompt_logprobs_from is not None:
            out.prompt_logprobs = _scored(seq, request.want_prompt_logprobs_from)
    return out


def _scored(seq: Sequence, first: int) -> tuple[float | None, ...]:
    scores: list[float | None] = [*seq.scores]
    if seq.request.images:  # what shows an image is not predicted
        ids = seq.ids[max(first, 1):]
        scores = [None if i >= FIRST_ID else s for i, s in zip(ids, scores, strict=False)]
    if first <= 0 and seq.prompt_len:
        return (None, *scores)
    return tuple(scores)


def _spell(ids: Ids[int], table: Ids[bytes]) -> bytes:
    return b"".join([table[i] for i in ids])
