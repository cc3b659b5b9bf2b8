"""`@program`: a Python function as a language-model program, and the ways to run it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sglc.config import RunOptions
from sglc.errors import LanguageError, SglcWarning
from sglc.lang import eager_run
from sglc.lang.calling import CallSignature, Controls, controls, place_of, run_options
from sglc.lang.defaults import Defaults
from sglc.lang.state import ProgramState
from sglc.runtime.keys import fresh_seed


class RunWhileLoading(BaseException):
    """A script that is loaded to be compiled wants to run a program."""


LOADING: ContextVar[bool] = ContextVar("sglc_loading", default=False)
"""While set, running a program raises RunWhileLoading: see `loading.py`."""

defaults = Defaults()
"""The process's default backend (SGLang's `set_default_backend`); nothing else is kept here."""

GENERATOR_CHUNK = 200  # rows that a generator-style batch runs at a time (SGLang's figure)


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the decorator."""

    fullgraph: bool = False
    outputs: tuple[str, ...] | None = None
    num_api_spec_tokens: int | None = None
    mode: str | None = None


class Program:
    """A program: call it, `run` it, `run_batch` it, or look at what the compiler makes of it."""

    __sglc_program__ = True  # how the tracer knows one without importing this module

    def __init__(self, fn: Callable[..., Any], settings: Settings | None = None,
                 signature: CallSignature | None = None) -> None:
        if not callable(fn) or isinstance(fn, type):
            raise LanguageError("SGLC009", f"@program decorates a function, not {fn!r}",
                                fixes=["put it directly above a def"])
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
        `mode="compiled"|"eager"`.
        """
        if LOADING.get():
            raise RunWhileLoading
        values, options, control = self._split(args, kwargs)
        seed = fresh_seed() if control.seed is None else control.seed
        return self._start(values, options, control, seed)

    def __call__(self, *args: Any, **kwargs: Any) -> ProgramState:
        """`run`; inside the body of another program, a call that shares that run's settings."""
        frame = eager_run.FRAME.get()
        if frame is None:
            return self.run(*args, **kwargs)
        values, sampling, _ = self.signature.split(kwargs, batch=False)
        options = run_options(sampling) if sampling else frame.run.options
        return eager_run.nested(frame, self.signature, self.signature.bind(args, values), options)

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
        too; unfinished ones hold SGLC506.  `progress_bar=True` shows progress;
        `generator_style=True` yields states lazily, in chunks of 200 rows.
        """
        if LOADING.get():
            raise RunWhileLoading
        args, sampling, control_kw = self.signature.split(kwargs, batch=True)
        if args:
            raise self.signature.error(f"run_batch() got unknown options: {', '.join(args)}")
        options, control = run_options(sampling), controls(control_kw)
        seed = fresh_seed() if control.seed is None else control.seed
        if control.generator_style:
            return self._lazy_batch(batch, options, control, seed)
        return self._batch(self.signature.rows(batch), options, control, seed, 0)

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

    def compile(self, *args: Any, backend: Any = None, level: int = 2, **kwargs: Any) -> Any:
        """The compiled program (`Compiled`) for these arguments, or for unknown ones.

        Without arguments, unknown lengths and counts are assumed to be 2 and labelled so.
        Needs no model: without a backend the byte tokenizer stands in.
        """
        from sglc.lang.compiled import compile_program

        return compile_program(self, args, kwargs, backend or defaults.current(), level)

    def trace(self, *args: Any, backend: Any = None, **kwargs: Any) -> Any:
        """The traced IR module, before any pass."""
        return self.compile(*args, backend=backend, **kwargs).stages["traced"]

    # -- how --------------------------------------------------------------------------------
    def _split(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[
            dict[str, Any], RunOptions, Controls]:
        values, sampling, control = self.signature.split(kwargs, batch=False)
        return self.signature.bind(args, values), run_options(sampling), controls(control)

    def _mode(self, control: Controls) -> str:
        return control.mode or self.settings.mode or "compiled"

    def compiler(self) -> Any:
        """The compiled variants of this program, kept with it."""
        if self._compiler is None:
            from sglc.lang.compiled import VariantCache

            self._compiler = VariantCache(self)
        return self._compiler

    def _start(self, values: dict[str, Any], options: RunOptions, control: Controls,
               seed: int) -> ProgramState:
        backend = defaults.resolve(control.backend)
        if self._mode(control) == "compiled":
            state = self.compiler().start(backend, values, options, seed, control.stream)
            if state is not None:
                return state  # type: ignore[no-any-return]
        return eager_run.start(self.signature, values, backend, options, seed,
                               stream=control.stream)

    def _batch(self, rows: list[dict[str, Any]], options: RunOptions, control: Controls,
               seed: int, first_row: int) -> list[ProgramState]:
        if not rows:
            return []
        backend = defaults.resolve(control.backend)
        if self._mode(control) == "compiled":
            return self.compiler().run_batch(  # type: ignore[no-any-return]
                backend, rows, options, seed, first_row, control)
        return eager_run.run_batch(self.signature, rows, backend, options, seed, first_row,
                                   num_threads=control.num_threads, progress=control.progress_bar)

    def warn_once(self, warning: SglcWarning) -> None:
        """Show a remark about this program, the first time it comes up."""
        if str(warning) not in self._warned:
            self._warned.add(str(warning))
            warnings.warn(warning, stacklevel=4)

    def __repr__(self) -> str:
        return f"<program {self.name}{self.signature.signature} at {place_of(self.fn)}>"


def program(fn: Callable[..., Any] | None = None, *, fullgraph: bool = False,
            outputs: Iterable[str] | None = None, num_api_spec_tokens: int | None = None,
            api_num_spec_tokens: int | None = None, mode: str | None = None) -> Any:
    """Make a function `def f(s, ...)` a program.

    fullgraph: an error instead of the eager interpreter where the compiler must give up.
    outputs: the only variables that the caller reads; others may be optimised away.
    mode: "compiled" (default) or "eager".
    num_api_spec_tokens (alias api_num_spec_tokens): accepted for remote completion APIs.
    """
    settings = Settings(
        fullgraph, None if outputs is None else tuple(outputs),
        api_num_spec_tokens if num_api_spec_tokens is None else num_api_spec_tokens, mode)
    if fn is None:
        return lambda f: Program(f, settings)
    return Program(fn, settings)
