"""`@program`: a Python function as a language-model program, and the ways to run it."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sglc import collector
from sglc.config import RunOptions
from sglc.errors import LanguageError, SglcError, SglcWarning, TraceError
from sglc.ir.bags import text_counts
from sglc.lang import eager_run
from sglc.lang.calling import CallSignature, Controls, controls, place_of, run_options
from sglc.lang.defaults import Defaults
from sglc.lang.places import calling_place
from sglc.lang.state import ProgramState
from sglc.runtime.keys import fresh_seed

if TYPE_CHECKING:
    from sglc.viz.live import Watch


class RunWhileLoading(BaseException):
    """A script that is loaded to be compiled wants to run a program."""


LOADING: ContextVar[bool] = ContextVar("sglc_loading", default=False)
"""While set, running a program raises RunWhileLoading: see `loading.py`."""

defaults = Defaults()
"""The process's default backend (SGLang's `set_default_backend`); nothing else is kept here."""

OPTIONAL_PASSES = frozenset((
    "hoist-prefixes", "refine-choices", "fold", "merge-duplicates", "eliminate-dead",
    "parallelize-forks", "lower-regex", "lower-select", "merge-gens", "early-prefill",
    "speculate-branches"))
"""Those that a program can do without."""

GENERATOR_CHUNK = 200  # rows that a generator-style batch runs at a time (SGLang's figure)


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the decorator."""

    fullgraph: bool = False
    outputs: tuple[str, ...] | None = None
    num_api_spec_tokens: int | None = None
    mode: str | None = None
    level: int = 2
    without: tuple[str, ...] = ()  # passes to leave out

    def batch_texts(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, int] | None:
        """What orders the bags of a batch, None where they stand as given."""
        return text_counts(rows) if self.level >= 3 else None


class Program:
    """A program: call it, `run` it, `run_batch` it, or look at what the compiler makes of it."""

    __sglc_program__ = True  # how the tracer knows one without importing this module

    def __init__(self, fn: Callable[..., Any], settings: Settings | None = None,
                 signature: CallSignature | None = None) -> None:
        if not callable(fn) or isinstance(fn, type):
            raise LanguageError("SGLC009", f"@program decorates a function, not {fn!r}",
                                fixes=["put it directly above a def"])
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise LanguageError("SGLC009", f"the program {fn.__name__} is a generator",
                                place=place_of(fn), why="its body would never run",
                                fixes=["return a value instead of yielding values",
                                       "stream with run(..., stream=True) and text_iter()"])
        self.fn = fn
        self.settings = settings or Settings()
        self.signature = signature or CallSignature(fn)
        self._compiler: Any = None
        self._warned: set[str] = set()
        functools.update_wrapper(self, fn)

    @property
    def name(self) -> str:
        return self.signature.name

    # -- running --------------------------------------------------------------------------
    def run(self, *args: Any, **kwargs: Any) -> ProgramState:
        """Start one run and return its state; reading the state waits for what it reads.

        Keywords are the program's arguments, sampling defaults (`max_new_tokens=128`,
        `temperature=1.0`, `stop=`, `top_p=`, ...) and `backend=`, `seed=`, `stream=`,
        `mode="compiled"|"eager"`; `viz=True` shows the run as it goes, and waits for its end.
        """
        if LOADING.get():
            raise RunWhileLoading
        values, options, control = self._split(args, kwargs)
        seed = fresh_seed() if control.seed is None else control.seed
        if not control.viz:
            return self._start(values, options, control, seed)
        with self._watch(control, 1) as watch:
            state = self._start(values, options, control, seed)
            state.error()  # waits for the end
            watch.row()
        return state

    def __call__(self, *args: Any, **kwargs: Any) -> ProgramState:
        """`run`; inside the body of another program, a call that shares that run's settings."""
        frame = eager_run.FRAME.get()
        if frame is None:
            self._refuse_host_call()
            return self.run(*args, **kwargs)
        values, sampling, _ = self.signature.split(kwargs, batch=False)
        options = frame.run.options
        if sampling:
            options = replace(run_options(sampling),
                              num_api_spec_tokens=options.num_api_spec_tokens)
        return eager_run.nested(frame, self.signature, self.signature.bind(args, values), options)

    def _refuse_host_call(self) -> None:
        """TraceError if Python that the compiler did not trace into calls this program: the call
        belongs to the run then, and the run cannot know of it."""
        from sglc.trace.hosts import REFUSED

        refused = REFUSED.get()
        if refused is not None:
            refused.append(TraceError(
                "SGLC112", f"the program {self.name} is called by Python that is not traced",
                why="the compiler did not see that the call would be made",
                fixes=("call it in the body of the program, by its name",
                       'run the outer program with mode="eager"',
                       f"{self.name}.run(...) for a run of its own")))
            raise refused[-1]

    async def arun(self, *args: Any, **kwargs: Any) -> ProgramState:
        """`run`, awaiting its end without blocking the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        state = await loop.run_in_executor(None, functools.partial(self.run, *args, **kwargs))
        await loop.run_in_executor(None, state.sync)
        return state

    def run_batch(self, batch: Iterable[Any], **kwargs: Any) -> Any:
        """Run every row (a dict of arguments, or a tuple) and return the states, in order.

        An error of a row stays in its state (`state.error()`).  On Ctrl-C the states come back
        too; unfinished ones hold SGLC506.  `progress_bar=True` shows progress, `viz=True` what
        the engine does (programs in flight, tokens a second, cache hits, KV);
        `generator_style=True` yields states lazily, in chunks of 200 rows.
        """
        if LOADING.get():
            raise RunWhileLoading
        args, sampling, control_kw = self.signature.split(kwargs, batch=True)
        if args:
            raise self.signature.error(f"run_batch() got unknown options: {', '.join(args)}")
        options, control = self._options(sampling), controls(control_kw)
        seed = fresh_seed() if control.seed is None else control.seed
        if control.generator_style:
            return self._lazy_batch(batch, options, control, seed)
        return self._batch(self.signature.rows(batch), options, control, seed, 0)

    def each_row(self, rows: Iterable[Any], numbers: Sequence[int],
                 on_row: Callable[[int, ProgramState], None], **kwargs: Any) -> None:
        """`run_batch` of some rows of a batch, with their numbers in it (sampling depends on
        them); `on_row(index, state)` is called in this thread as each ends.

        Its errors end the batch.  After Ctrl-C it is not called for rows that did not finish.
        """
        args, sampling, control_kw = self.signature.split(kwargs, batch=True)
        if args:
            raise self.signature.error(f"each_row() got unknown options: {', '.join(args)}")
        control = replace(controls(control_kw), row_numbers=tuple(numbers), on_row=on_row)
        seed = fresh_seed() if control.seed is None else control.seed
        self._batch(self.signature.rows(rows), self._options(sampling), control, seed, 0)

    def _lazy_batch(self, batch: Iterable[Any], options: RunOptions, control: Controls,
                    seed: int) -> Iterator[ProgramState]:
        import itertools

        source, first = iter(batch), 0
        while chunk := list(itertools.islice(source, GENERATOR_CHUNK)):
            yield from self._batch(self.signature.rows(chunk), options, control, seed, first)
            first += len(chunk)

    # -- binding and compiling ------------------------------------------------------------
    def bind(self, **values: Any) -> Program:
        """This program with some arguments fixed."""
        return Program(self.fn, self.settings, self.signature.with_bound(values))

    def compile(self, *args: Any, backend: Any = None, level: int | None = None,
                any_length: bool = False, **kwargs: Any) -> Any:
        """The compiled program (`Compiled`) for these arguments, or for unknown ones.

        level: -O0 to -O3 (default: the program's `opt_level`).

        any_length: the form with loops that stands for lists of any length (used where a
        program is called with more than a few), if there is one.

        Without arguments, unknown lengths and counts are assumed to be 2 and labelled so.
        Needs no model: without a backend the byte tokenizer stands in.
        """
        from sglc.lang.compiled import compile_program

        level = self.settings.level if level is None else level
        return compile_program(self, args, kwargs, backend or defaults.current(), level,
                               any_length=any_length)

    def trace(self, *args: Any, backend: Any = None, **kwargs: Any) -> Any:
        """The traced IR module, before any pass; TraceError if the program cannot be traced."""
        compiled = self.compile(*args, backend=backend, **kwargs)
        if not compiled.stages:
            d = compiled.breaks[0]
            raise TraceError(d.code, d.what, place=d.place, why=d.why, fixes=d.fixes)
        return compiled.stages["traced"]

    # -- how --------------------------------------------------------------------------------
    def _split(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[
            dict[str, Any], RunOptions, Controls]:
        values, sampling, control = self.signature.split(kwargs, batch=False)
        return self.signature.bind(args, values), self._options(sampling), controls(control)

    def _options(self, sampling: Mapping[str, Any]) -> RunOptions:
        return replace(run_options(sampling),
                       num_api_spec_tokens=self.settings.num_api_spec_tokens)

    def _mode(self, control: Controls) -> str:
        return control.mode or self.settings.mode or "compiled"

    def compiler(self) -> Any:
        """The compiled variants of this program, kept with it."""
        if self._compiler is None:
            from sglc.lang.variant_cache import VariantCache

            self._compiler = VariantCache(self)
        return self._compiler

    def _start(self, values: dict[str, Any], options: RunOptions, control: Controls,
               seed: int) -> ProgramState:
        backend = defaults.resolve(control.backend)
        if self._mode(control) == "compiled":
            if not control.stream and hasattr(backend, "start_program"):
                from sglc.lang.remote_run import start_remote

                (remote,) = start_remote(self, backend, [values], options, seed, [0])
                if remote is not None:
                    return remote
            state = self.compiler().start(backend, values, options, seed, control.stream)
            if state is not None:
                return state  # type: ignore[no-any-return]
        return eager_run.start(self.signature, values, backend, options, seed,
                               stream=control.stream, batch=self.settings.batch_texts([values]))

    def _batch(self, rows: list[dict[str, Any]], options: RunOptions, control: Controls,
               seed: int, first_row: int) -> list[ProgramState]:
        if not rows:
            return []
        if control.viz:
            with self._watch(control, len(rows)) as watch:
                def ended(index: int, state: Any) -> None:
                    watch.row()
                    if control.on_row is not None:
                        control.on_row(index, state)

                return self._batch(rows, options, replace(control, viz=False, on_row=ended), seed,
                                   first_row)
        backend = defaults.resolve(control.backend)
        compiled = self._mode(control) == "compiled"
        if compiled and hasattr(backend, "start_program"):
            return self._remote_batch(backend, rows, options, control, seed, first_row)
        with collector.batches.slow():
            if compiled:
                return self.compiler().run_batch(  # type: ignore[no-any-return]
                    backend, rows, options, seed, first_row, control)
            return eager_run.run_batch(
                self.signature, rows, backend, options, seed, first_row,
                num_threads=control.num_threads, progress=control.progress_bar,
                row_numbers=control.row_numbers, on_row=control.on_row,
                batch=self.settings.batch_texts(rows))

    def _watch(self, control: Controls, rows: int) -> Watch:
        from sglc.viz.live import Watch

        return Watch(defaults.resolve(control.backend), rows, self.name)

    def _remote_batch(self, backend: Any, rows: list[dict[str, Any]], options: RunOptions,
                      control: Controls, seed: int, first_row: int) -> list[ProgramState]:
        """Rows that a server runs as one unit, and the others here; all are done at the end."""
        from sglc.lang.remote_run import start_remote

        numbers = control.row_numbers or range(first_row, first_row + len(rows))
        states: list[Any] = list(start_remote(self, backend, rows, options, seed, numbers))
        here = [i for i, state in enumerate(states) if state is None]
        if here:
            done = self.compiler().run_batch(
                backend, [rows[i] for i in here], options, seed, 0,
                replace(control, row_numbers=[numbers[i] for i in here], on_row=None))
            for i, state in zip(here, done, strict=True):
                states[i] = state
        for i, state in enumerate(states):
            state.error()
            if control.on_row is not None:
                control.on_row(i, state)
        return states

    def warn_once(self, warning: SglcWarning) -> None:
        """Show a remark about this program, the first time it comes up."""
        if str(warning) not in self._warned:
            self._warned.add(str(warning))
            place = calling_place()  # not a line of ours
            warnings.warn_explicit(warning, SglcWarning, place.file if place else "sglc",
                                   place.line if place else 1)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        """How a notebook shows it: as what the compiler makes of it, for any arguments."""
        try:
            shown: dict[str, str] = self.compile()._repr_mimebundle_(**options)
        except SglcError as e:
            return {"text/plain": f"{self!r}\n{e}"}
        return shown

    def __repr__(self) -> str:
        return f"<program {self.name}{self.signature.signature} at {place_of(self.fn)}>"


def program(fn: Callable[..., Any] | None = None, *, fullgraph: bool = False,
            outputs: Iterable[str] | None = None, num_api_spec_tokens: int | None = None,
            api_num_spec_tokens: int | None = None, mode: str | None = None,
            opt_level: int = 2, without: Iterable[str] = ()) -> Any:
    """Make a function `def f(s, ...)` a program.

    fullgraph: an error instead of the eager interpreter where the compiler must give up.
    outputs: the only variables that the caller reads; others may be optimised away.
    mode: "compiled" (default) or "eager".
    num_api_spec_tokens (alias api_num_spec_tokens): on remote APIs, ask for up to this many tokens
        at a gen that ends at a stop string, and take the gens that follow from the text, as long
        as it is what the program says (see `backends/api/speculation.py`).  Programs called from
        a body follow the caller's.
    opt_level: 0 to 3.  Up to 2 (the default) results are those of the program as written; 3 may
        order its bags so that the rows of a batch share more (in eager mode too).
    without: passes to leave out, by name, such as "merge-duplicates".
    """
    without = tuple(without)
    if unknown := [name for name in without if name not in OPTIONAL_PASSES]:
        raise LanguageError("SGLC004", f"without names {unknown[0]!r}, which is no pass that can "
                            "be left out",
                            fixes=[f"use some of {', '.join(sorted(OPTIONAL_PASSES))}"])
    if opt_level not in range(4):
        raise LanguageError("SGLC004", f"opt_level is 0, 1, 2 or 3, not {opt_level!r}")
    if num_api_spec_tokens is None:
        num_api_spec_tokens = api_num_spec_tokens
    if num_api_spec_tokens is not None and (
            type(num_api_spec_tokens) is not int or num_api_spec_tokens < 1):
        raise LanguageError("SGLC004", "num_api_spec_tokens must be an integer of at least 1, not "
                            f"{num_api_spec_tokens!r}")
    settings = Settings(
        fullgraph, None if outputs is None else tuple(outputs),
        num_api_spec_tokens, mode,
        opt_level, without)
    if fn is None:
        def decorate(f: Callable[..., Any]) -> Program:
            return Program(f, settings)

        decorate.__sglc_decorator__ = True  # type: ignore[attr-defined]
        return decorate
    return Program(fn, settings)


program.__sglc_decorator__ = True  # type: ignore[attr-defined]  # the tracer may call it
