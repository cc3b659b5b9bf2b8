"""Equality of two greedy runs on a real model: equal, or apart only where the model is undecided.

Rows of different batches go through differently shaped matrix products, so two candidates whose
log-probabilities differ by less than rounding may change places.  What differs is therefore
replayed: the ids before the first difference are given to the engine as they are, both candidates
are scored there, and a gap of `TIE` or more is an error.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from typing import Any

from sglc.lang.state import ProgramState
from sglc.runtime.request import Request, Result, SamplingParams

TIE = 1e-3


class Recorder:
    """A backend that passes everything on to another one and remembers what was answered."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.answers: list[tuple[Request, Result]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            request.on_done = self._remember(request, request.on_done)
        self.backend.submit(requests)

    def _remember(self, request: Request, on_done: Any) -> Any:
        def done(result: Result) -> None:
            self.answers.append((request, result))
            on_done(result)

        return done

    def by_prompt(self, kind: str) -> dict[Any, tuple[Request, Result]]:
        """What was asked -> the request and its answer."""
        return {(tuple(q.ids), q.sampling, q.score_from, tuple(map(tuple, q.choices))): (q, r)
                for q, r in self.answers if q.kind == kind}


def outcome(state: ProgramState) -> Any:
    """Everything to compare of a run."""
    return state.text(), list(state.token_ids()), {n: state[n] for n in state.variable_names()}


def assert_equal_up_to_ties(left: Recorder, right: Recorder, a: ProgramState, b: ProgramState,
                            tie: float = TIE) -> int:
    """How many ties were decided differently; AssertionError for any other difference.

    a, b: the states of two runs at temperature 0, on `left` and on `right`.
    """
    a.sync()
    b.sync()
    ties = 0
    mine, other = left.by_prompt("generate"), right.by_prompt("generate")
    for key in mine.keys() & other.keys():
        (request, x), (_, y) = mine[key], other[key]
        if (x.ids, x.text) != (y.ids, y.text):
            gap = _gap(left.backend, request, x, y)
            assert gap < tie, (f"{x.text!r} against {y.text!r}, and the model prefers one "
                               f"by {gap:.4f}")
            ties += 1
    mine, other = left.by_prompt("score"), right.by_prompt("score")
    for key in mine.keys() & other.keys():
        scores = [[0.0 if lp is None else lp for row in (r.logprobs, *r.choices) for lp in row]
                  for _, r in (mine[key], other[key])]
        assert all(abs(p - q) < tie for p, q in zip(*scores, strict=True)), scores
    for name in set(a.variable_names()) & set(b.variable_names()):
        scores = (a.get_meta_info(name) or {}).get("normalized_prompt_logprobs", ())
        if len(scores) > 1 and a[name] != b[name]:
            best, second = sorted(scores, reverse=True)[:2]
            ties += best - second < tie
    if not ties:
        assert outcome(a) == outcome(b)
    return ties


def _gap(backend: Any, request: Request, x: Result, y: Result) -> float:
    """How much the model prefers one of two continuations where they part."""
    at = next((i for i, (p, q) in enumerate(zip(x.ids, y.ids, strict=False)) if p != q),
              min(len(x.ids), len(y.ids)))
    ids = array("q", [*request.ids, *x.ids[:at]])
    candidates = [_logprob(backend, ids, r.ids[at]) for r in (x, y) if len(r.ids) > at]
    if len(candidates) == 2:
        return abs(candidates[0] - candidates[1])
    # One of them ended here (EOS, a stop string): with a token that its result does not show.
    best = _ask(backend, Request("generate", ids, lambda _: None, SamplingParams(
        max_tokens=1, temperature=0.0, ignore_eos=True, top_logprobs=2))).top_logprobs[0]
    return best[0][0] - best[1][0]


def _logprob(backend: Any, ids: array, token: int) -> float:
    scored = _ask(backend, Request("score", array("q", [*ids, token]), lambda _: None,
                                   score_from=len(ids)))
    logprob = scored.logprobs[-1]
    assert logprob is not None
    return logprob


def _ask(backend: Any, request: Request) -> Result:
    results: list[Result] = []
    ready = threading.Event()

    def done(result: Result) -> None:
        results.append(result)
        ready.set()

    request.on_done = done
    backend.submit([request])
    assert ready.wait(60)
    assert results[0].error is None
    return results[0]
