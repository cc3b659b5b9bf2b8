"""Runs a pipeline of passes over a module: verified, timed and recorded.

It knows passes only by their base class; which exist is in `pipelines.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from sglc.errors import IRError, LanguageError, SglcError
from sglc.ir.clone import clone_module
from sglc.ir.module import Module
from sglc.ir.printer import print_module
from sglc.ir.verifier import verify
from sglc.passes.base import PRESERVES, Pass, PassContext, Preserves
from sglc.passes.facts import CALLS, blocks
from sglc.passes.pipelines import PASSES
from sglc.passes.prefill import Prefill, PrefillCounter
from sglc.passes.spec import parse_spec


class PassError(IRError):
    """A pass failed or broke the IR.

    pass_name: which.  module: the module before it.  reproducer: the rest of the pipeline and
    that module as text, which `sglc opt` takes.
    """

    def __init__(self, broken: Pass, rest: str, module: Module, cause: BaseException,
                 context: PassContext) -> None:
        self.pass_name = broken.name
        self.module = module
        self.reproducer = f"// RUN: {rest}\n{_conditions(context)}{print_module(module)}"
        detail = cause.diagnostic.what if isinstance(cause, SglcError) else repr(cause)
        super().__init__("SGLC203", f"the pass {broken} failed: {detail}",
                         effect="The program was not compiled.",
                         fixes=("run at -O0, and report the reproducer (error.reproducer)",))


@dataclass(slots=True)
class PassRecord:
    """What one pass did.  `ops` and `calls` count operations and model calls after it, `prefill`
    its distinct constant tokens (if measured); `seconds` is without verification."""

    name: str
    spec: str
    seconds: float = 0.0
    verify_seconds: float = 0.0
    ops_before: int = 0
    ops: int = 0
    calls_before: int = 0
    calls: int = 0
    prefill_before: Prefill | None = None
    prefill: Prefill | None = None
    stats: dict[str, int] = field(default_factory=dict)
    module_before: Module | None = None  # snapshots, with keep_text
    module_after: Module | None = None

    @property
    def text_before(self) -> str | None:
        """The IR before the pass, if snapshots are kept."""
        return None if self.module_before is None else print_module(self.module_before)

    @property
    def text_after(self) -> str | None:
        return None if self.module_after is None else print_module(self.module_after)


VERIFY_EACH_OPS = 20_000
"""Larger modules are verified before and after the pipeline only: checking them after each pass
takes longer than the passes."""

Callback = Callable[[PassRecord | None, Module], None]
"""Called with None and the module before the first pass, then after each with its record."""


class PassManager:
    """A pipeline.

    passes: a spec (see `spec.py`) or passes.  level: passes that preserve less than the level
    allows are refused (text below -O3), unless `allow` says otherwise.  verify: check the IR
    before the first pass (unless it is `verified` already) and after each (of large modules only
    after the last, see VERIFY_EACH_OPS).  measure: count unique prefill tokens (needs a
    tokenizer).  keep_text: keep the modules between passes, for `PassRecord.text_before/after`.
    """

    def __init__(self, passes: str | Sequence[Pass] = (), *, level: int = 2,
                 allow: Preserves | None = None, verify: bool = True, measure: bool = False,
                 keep_text: bool = False, callbacks: Sequence[Callback] = (),
                 verified: bool = False) -> None:
        self.passes: tuple[Pass, ...] = (
            parse_spec(passes, PASSES) if isinstance(passes, str) else tuple(passes))
        self.verify = verify
        self.verified = verified
        self.measure = measure
        self.keep_text = keep_text
        self.callbacks = tuple(callbacks)
        self.records: list[PassRecord] = []
        weakest = allow or ("text" if level < 3 else "quality")
        for p in self.passes:
            if PRESERVES.index(p.preserves) > PRESERVES.index(weakest):
                raise LanguageError(
                    "SGLC008", f"the pass {p.name} preserves only {p.preserves}, which -O{level} "
                    "does not allow", fixes=("use -O3", "leave the pass out"))

    @property
    def spec(self) -> str:
        """The pipeline as text."""
        return ",".join(map(str, self.passes))

    def run(self, module: Module, context: PassContext | None = None) -> Module:
        """A new module: `module` (left as it is) after all passes.  Raises PassError."""
        context = context or PassContext()
        self.records = []
        if self.verify and not self.verified:
            verify(module)
        work = clone_module(module)
        measure = _Measure(context if self.measure else None)
        before = measure(work)
        snapshot = clone_module(work) if self.keep_text else None
        for callback in self.callbacks:
            callback(None, work)
        for index, p in enumerate(self.passes):
            record = PassRecord(p.name, str(p), module_before=snapshot)
            record.ops_before, record.calls_before, record.prefill_before = before
            self._step(index, work, context, record, module)
            before = measure(work)
            record.ops, record.calls, record.prefill = before
            if self.keep_text:
                snapshot = record.module_after = clone_module(work)
            self.records.append(record)
            for callback in self.callbacks:
                callback(record, work)
        return work

    def _step(self, index: int, work: Module, context: PassContext, record: PassRecord,
              original: Module) -> None:
        p = self.passes[index]
        try:
            start = perf_counter()
            record.stats = p.run(work, context)
            record.seconds = perf_counter() - start
        except SglcError:
            raise  # the pass found a mistake of its user
        except Exception as error:
            raise self._failure(index, original, context, error) from error
        last = index == len(self.passes) - 1
        if self.verify and (last or record.ops_before <= VERIFY_EACH_OPS):
            start = perf_counter()
            try:
                verify(work)
            except IRError as error:
                raise self._failure(index, original, context, error) from error
            record.verify_seconds = perf_counter() - start

    def _failure(self, index: int, original: Module, context: PassContext,
                 cause: BaseException) -> PassError:
        """The error of a pass, with the module before it, made again from the original."""
        module = clone_module(original)
        quiet = replace(context, rewrites=None)
        for p in self.passes[:index]:
            p.run(module, quiet)
        rest = ",".join(map(str, self.passes[index:]))
        return PassError(self.passes[index], rest, module, cause, context)


def _conditions(context: PassContext) -> str:
    """What the passes knew, as options of `sglc opt`."""
    words = [] if context.rows == 1 else [f"--rows {context.rows}"]
    if context.max_tokens is not None:
        words.append(f"--max-tokens {context.max_tokens}")
    if not context.may_stop:
        words.append("--no-stops")
    name = getattr(context.tokenizer, "name", None)
    note = "" if name in (None, "bytes") else f"// The tokenizer was {name}: give --tokenizer\n"
    return (f"// WITH: {' '.join(words)}\n" if words else "") + note


class _Measure:
    """Counts ops, model calls and (with a context) unique prefill tokens of a module."""

    def __init__(self, context: PassContext | None) -> None:
        tokenizer = context.tokenizer if context is not None else None
        self.counter = PrefillCounter(tokenizer) if tokenizer is not None else None

    def __call__(self, module: Module) -> tuple[int, int, Prefill | None]:
        ops = calls = 0
        for block in blocks(module):
            ops += len(block.ops)
            calls += sum([op.name in CALLS for op in block.ops])
        return ops, calls, self.counter.count(module) if self.counter is not None else None
