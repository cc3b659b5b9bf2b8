"""`sglc bench programs`: what workloads cost under each mode and scheduling policy."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from math import ceil
from typing import Any

from sglc.commands import common, tables
from sglc.errors import LanguageError
from sglc.plan.figures import Beside
from sglc.progress import Progress
from sglc.workloads import WORKLOADS, Workload
from sglc.workloads.measure import Measured, measure, warm
from sglc.workloads.pairs import Contender, Pairs, run_pairs

MODES = ("compiled", "eager")
_OURS = Contender("compiled", "planned")
_AMPLE = 1 << 22  # KV tokens of a hash model whose memory is not in question


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 if a row failed."""
    if options.list:
        tables.show(("workload", "what it does", "rows", "full rows"), [
            (w.name, w.about, w.small.rows, w.full.rows) for w in WORKLOADS.values()])
        return 0
    from sglc.runtime.policies import POLICIES

    names = _names(options.workload, tuple(WORKLOADS), "workload")
    contenders = [Contender(mode, policy)
                  for policy in _names(options.policy, tuple(POLICIES), "policy")
                  for mode in _names(options.mode, MODES, "mode")]
    if options.kv_fraction is not None and not 0 < options.kv_fraction:
        raise LanguageError("SGLC001", "--kv-fraction takes a number above 0")
    out: dict[str, Any] = {"model": options.model, "size": options.size, "seed": options.seed,
                           "runs": [], "predicted": [], "pairs": []}
    failed = 0
    quiet = options.json == "-"  # the JSON has stdout for itself
    bar = Progress(len(names) * len(contenders), unit="run", leave=False)
    with _Engine(options.model, _engine_options(options)) as engine:
        for name in names:
            case = _Case(WORKLOADS[name], options, engine)
            results = {}
            for c in contenders:
                results[c] = case.run(c)
                bar.step()
            bar.hide()
            failed += sum([m.errors for m in results.values()])
            out["runs"] += [{"workload": name, "mode": c.mode, "policy": c.policy, **m.as_dict()}
                            for c, m in results.items()]
            predicted = case.predicted(results[_OURS]) if _OURS in results else None
            if predicted is not None:
                out["predicted"].append({"workload": name, **predicted.json()})
            if not quiet:
                _show(WORKLOADS[name], results)
                if predicted is not None:
                    print(f"{_OURS}\n{predicted}\n", flush=True)
            pairs = case.pairs(results, options.pairs) if options.pairs else None
            if pairs is not None:
                out["pairs"].append({"workload": name, **pairs.as_dict()})
                if not quiet:
                    print(f"{pairs}\n", flush=True)
    bar.close()
    if options.json:
        common.write(json.dumps(out, indent=1) + "\n", None if quiet else options.json)
    if failed:
        print(f"{failed} rows failed", file=sys.stderr)
    return 1 if failed else 0


def _engine_options(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords of the engine.  Raises LanguageError SGLC001 for text that is no JSON object."""
    try:
        out = json.loads(options.options)
    except ValueError as e:
        out = str(e)
    if not isinstance(out, dict):
        raise LanguageError("SGLC001", "--options takes a JSON object", why=str(out),
                            fixes=("""write --options '{"device": "cuda"}'""",))
    if options.batch_tokens is not None:
        out["max_batch_tokens"] = options.batch_tokens
    return out


class _Engine:
    """The engine that workloads run on: opened when it is needed, and anew for another pool."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._kind, _, self._tokens = model.partition(":")
        self._model = model
        self._options = options
        self._kv: int | None = None
        self._backend: Any = None

    def __enter__(self) -> _Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._backend is not None:
            self._backend.close()

    def get(self, kv: int | None, policy: str) -> Any:
        """The backend with a pool of this size and an empty cache, under a policy."""
        if self._backend is None or kv != self._kv:
            self.__exit__()
            self._backend, self._kv = self._open(kv), kv
        self._backend.core.wait_idle()
        self._backend.use_policy(policy)
        return self._backend

    def _open(self, kv: int | None) -> Any:
        if self._kind != "hash":
            from sglc.backends.engine import Engine

            return Engine(self._model, kv_tokens=kv, **self._options)
        from sglc.backends.hash_model import HashModel

        tokens = None if self._tokens in ("", "bytes") else self._tokens
        return HashModel(tokens, kv_tokens=kv or _AMPLE, **self._options)


class _Case:
    """One workload at one size, with the pool that it is given."""

    def __init__(self, workload: Workload, options: argparse.Namespace, engine: _Engine) -> None:
        size = workload.full if options.size == "full" else workload.small
        if options.rows is not None:
            size = replace(size, rows=max(1, options.rows))
        self.program = workload.program(size)
        self.rows = workload.batch(size, options.seed)
        self.engine = engine
        self.threads: int | str = options.threads or "auto"
        self.kv: int | None = options.kv_tokens
        if options.kv_fraction is not None:
            # How much memory would hold everything is known when it has been run.
            full = self.run(_OURS)
            self.kv = max(ceil(options.kv_fraction * full.working_set), full.longest + 1)

    def run(self, contender: Contender, *, warmed: bool = False) -> Measured:
        backend = self.engine.get(self.kv, contender.policy)
        if not warmed:
            warm(self.program, self.rows, backend, contender.mode)
        return measure(self.program, self.rows, backend, contender.mode, self.threads)

    def predicted(self, measured: Measured) -> Beside:
        """What the cost model says of the compiled, planned form, beside what it was."""
        backend = self.engine.get(self.kv, _OURS.policy)
        if backend.step_cost is None:
            backend.calibrate()
        compiled = self.program.compile(**self.rows[0], backend=backend)
        return compiled.cost(self.rows, temperature=0).against(
            prefill=measured.prefill, decode=measured.decode + measured.forced,
            kv_peak=measured.kv_peak, steps=measured.steps, seconds=measured.seconds)

    def pairs(self, results: dict[Contender, Measured], n: int) -> Pairs | None:
        """The compiled, planned form against the fastest baseline; None without one of them."""
        others = [c for c in results if c.policy != _OURS.policy]
        if _OURS not in results or not others:
            return None
        best = min(others, key=lambda c: results[c].seconds)
        return run_pairs(_OURS, best, n, lambda c: self.run(c, warmed=True).seconds)


def _names(given: str | None, known: tuple[str, ...], what: str) -> list[str]:
    """A comma-separated choice of `known`; all of them where nothing (or `all`) is given."""
    if given in (None, "all"):
        return list(known)
    names = [n.strip() for n in str(given).split(",") if n.strip()]
    for n in names:
        if n not in known:
            raise LanguageError("SGLC001", f"there is no {what} {n!r}",
                                fixes=(f"use some of {', '.join(known)}",))
    return names


def _show(workload: Workload, results: dict[Contender, Measured]) -> None:
    first = next(iter(results.values()))
    title = (f"{workload.name}: {workload.about}; {first.rows} rows, KV pool {first.kv}, "
             f"working set {first.working_set}")
    head = ("mode", "policy", "prefill", "bound", "x", "decode", "steps", "hit rate",
            "retracted", "KV peak", "seconds")
    tables.show(head, [
        (c.mode, c.policy, m.prefill, m.bound, f"{m.ratio:.2f}", m.decode, m.steps,
         f"{100 * m.hit_rate:.0f} %", m.retractions, m.kv_peak, f"{m.seconds:.3f}")
        for c, m in results.items()], title)
