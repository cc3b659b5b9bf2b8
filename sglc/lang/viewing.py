"""What there is to see of a compiled program, gathered for the viewer (`viz/`)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sglc.errors import LanguageError, SglcError
from sglc.ir.module import Module
from sglc.ir.printer import print_module
from sglc.lang.calling import place_of
from sglc.lang.costs import batch_outlook
from sglc.passes.base import Rewrite
from sglc.passes.manager import PassRecord
from sglc.plan.figures import Beside
from sglc.tokens.bytes import ByteTokenizer
from sglc.viz.samples import Sample
from sglc.viz.subject import Step, Subject


def subject(compiled: Any, *, batch: Iterable[Any] | None = None, backend: Any = None,
            after: Sequence[Any] | None = None, options: Mapping[str, Any] | None = None,
            actual: Beside | None = None, samples: Sequence[Sample] = (),
            tokens: str | None = None, kv_bytes: int | None = None) -> Subject:
    """The subject of a `Compiled`.

    batch, backend, after, options: what the plan and the cost are for, as in `Compiled.cost`.
    actual, samples: of a run of it.  tokens: a name for its tokenizer.  kv_bytes: of the KV of a
    token (by default the backend's).
    """
    program = compiled.program
    explained = compiled.explain()
    context = compiled.context
    tokenizer = None if context is None else context.tokenizer
    rows = None if batch is None else list(batch)
    backend = backend or compiled.backend
    found, machine = None, None
    if rows and compiled.stages and tokenizer is not None:
        found, machine = batch_outlook(compiled, rows, backend, after, options)
    if kv_bytes is None:
        runner = getattr(getattr(backend, "core", None), "runner", None)
        kv_bytes = getattr(runner, "bytes_per_token", None)
    before, steps = history(compiled)
    return Subject(
        program.name, place_of(program.fn) or explained.place, _length(program.fn),
        compiled.stages, before, steps, compiled.breaks, explained.remarks, compiled.assumed,
        compiled.paths, tokenizer, _named(tokenizer) if tokens is None else tokens, kv_bytes,
        len(rows or [None]), found, machine, actual, tuple(samples))


def history(compiled: Any) -> tuple[str, list[Step]]:
    """The IR before the first pass, and the passes, run again to see what each rewrote; nothing
    if the program was not captured."""
    from sglc.lang.lowering import lower

    traced = compiled.stages.get("traced")
    if traced is None:
        return "", []
    rewrites: list[Rewrite] = []
    texts: list[str] = []
    steps: list[Step] = []

    def note(record: PassRecord | None, module: Module) -> None:
        if record is None:
            if not texts:
                texts.append(print_module(module))
            return
        seen = sum(len(s.rewrites) for s in steps)
        steps.append(Step(record, print_module(module), tuple(rewrites[seen:])))

    settings = compiled.program.settings
    level = settings.level if compiled.level is None else compiled.level
    lower(traced, replace(compiled.context, rewrites=rewrites), level, outputs=settings.outputs,
          without=settings.without, callbacks=[note], measure=True)
    return texts[0], steps


def write_page(shown: Subject, path: str | Path | None = None) -> Path:
    """Write the viewer of a subject; LanguageError SGLC001 if that fails."""
    from sglc.viz.html import document

    path = Path(path) if path is not None else Path(
        re.sub(r"[^\w.-]+", "_", shown.name).strip(".") + ".html")
    try:
        path.write_text(document(shown), encoding="utf-8")
    except OSError as e:
        raise LanguageError("SGLC001", f"{path} cannot be written", why=str(e)) from e
    return path


def own_arguments(compiled: Any) -> list[Any] | None:
    """The batch of the one row of the arguments that it was compiled for, or of no arguments if
    the program needs none; else None."""
    if compiled.given is not None:
        return [compiled.given]
    try:
        compiled.program.signature.bind((), {})
    except SglcError:
        return None
    return [{}]


def _length(fn: Any) -> int:
    """How many lines a function takes."""
    try:
        return len(inspect.getsourcelines(inspect.unwrap(fn))[0])
    except (OSError, TypeError):
        return 1


def _named(tokenizer: Any) -> str:
    if tokenizer is None:
        return ""
    if isinstance(tokenizer, ByteTokenizer):
        return "bytes (no model: counts are of bytes)"
    return str(getattr(tokenizer, "name", "tokenizer"))
