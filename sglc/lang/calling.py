"""How a program is called: which keyword is an argument and which an option, batches of rows."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sglc import config
from sglc.config import RunOptions
from sglc.errors import ArgumentError, LanguageError, Place, meant
from sglc.trace.arguments import spread

# run() keyword -> RunOptions field
_SAMPLING = {
    "max_new_tokens": "max_tokens", "max_tokens": "max_tokens", "min_new_tokens": "min_tokens",
    "min_tokens": "min_tokens", "n": "n", "stop": "stop", "stop_token_ids": "stop_token_ids",
    "stop_regex": "stop_regex", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k",
    "min_p": "min_p", "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty", "repetition_penalty": "repetition_penalty",
    "ignore_eos": "ignore_eos", "no_stop_trim": "no_stop_trim",
    "return_logprob": "return_logprob", "logprob_start_len": "logprob_start_len",
    "top_logprobs_num": "top_logprobs_num",
    "return_text_in_logprobs": "return_text_in_logprobs",
    "skip_special_tokens": "skip_special_tokens",
    "spaces_between_special_tokens": "spaces_between_special_tokens", "heal": "heal",
}
_CONTROL = ("backend", "seed", "mode", "stream", "use_thread", "num_threads", "progress_bar",
            "generator_style", "viz")
MODES = ("compiled", "eager")


@dataclass(frozen=True, slots=True)
class Controls:
    """Options of a run that are not about sampling.

    row_numbers, on_row: see `Program.each_row`.  viz: show the run as it goes.
    """

    backend: Any = None
    seed: int | None = None
    mode: str | None = None
    stream: bool = False
    num_threads: int | str = "auto"
    progress_bar: bool = False
    generator_style: bool = False
    use_thread: bool = True
    viz: bool = False
    row_numbers: Sequence[int] | None = None
    on_row: Callable[[int, Any], None] | None = None


class CallSignature:
    """The arguments that a program takes beside its state."""

    def __init__(self, fn: Callable[..., Any], bound: Mapping[str, Any] | None = None) -> None:
        self.fn = fn
        self.name = getattr(fn, "__name__", "program")
        parameters = list(inspect.signature(fn).parameters.values())
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if not parameters or parameters[0].kind not in positional:
            raise LanguageError(
                "SGLC009", f"program {self.name!r} takes no prompt state", place=place_of(fn),
                fixes=[f"give it a first parameter: def {self.name}(s, ...)"])
        self.state_name = parameters[0].name
        self.defaults = _defaults(fn)
        self.signature = inspect.Signature(parameters[1:])
        self.names = tuple(p.name for p in parameters[1:])
        self.takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self.bound = dict(bound or {})

    def with_bound(self, values: Mapping[str, Any]) -> CallSignature:
        unknown = [k for k in values if k not in self.names and not self.takes_any]
        if unknown:
            raise self.error(f"bind() got unknown arguments: {', '.join(unknown)}")
        return CallSignature(self.fn, {**self.bound, **values})

    def split(self, kwargs: Mapping[str, Any], *, batch: bool) -> tuple[
            dict[str, Any], dict[str, Any], dict[str, Any]]:
        """kwargs as (program arguments, sampling options, controls).

        A name that the program has as a parameter is always the program's.
        """
        args: dict[str, Any] = {}
        sampling: dict[str, Any] = {}
        control: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in self.names and not batch:
                args[name] = value
            elif name in _SAMPLING:
                sampling[_SAMPLING[name]] = value
            elif name in _CONTROL:
                control[name] = value
            else:
                args[name] = value
        return args, sampling, control

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any],
             row: int | None = None) -> dict[str, Any]:
        """Parameter -> value, defaults applied; ArgumentError SGLC001 if they do not fit."""
        if _defaults(self.fn) != self.defaults:  # edited since
            self.defaults = _defaults(self.fn)
            self.signature = inspect.Signature(
                list(inspect.signature(self.fn).parameters.values())[1:])
        free = [p for p in self.signature.parameters.values() if p.name not in self.bound]
        for name in kwargs:
            if name not in self.names and not self.takes_any:
                known = [*self.names, *_SAMPLING, *_CONTROL]
                raise self.error(f"there is no argument {name!r}{meant(name, known)}", row)
        try:
            call = inspect.Signature(free).bind(*args, **kwargs)
        except TypeError as e:
            raise self.error(str(e), row) from None
        call.apply_defaults()
        values = dict(self.bound)
        for p in free:
            if p.kind is inspect.Parameter.VAR_KEYWORD:
                values.update(call.arguments.get(p.name, {}))
            elif p.kind is inspect.Parameter.VAR_POSITIONAL:
                values["*" + p.name] = call.arguments.get(p.name, ())
            else:
                values[p.name] = call.arguments[p.name]
        return values

    def call(self, state: Any, values: Mapping[str, Any]) -> Any:
        """Run the body."""
        positional, keywords = spread(self.fn, values)
        result = self.fn(state, *positional, **keywords)
        return run_coroutine(result) if inspect.iscoroutine(result) else result

    def rows(self, batch: Iterable[Any]) -> list[dict[str, Any]]:
        """The bound arguments of each row of a batch (dicts, or tuples of positional ones)."""
        out = []
        for i, row in enumerate(batch):
            if isinstance(row, Mapping):
                out.append(self.bind((), row, i))
            elif isinstance(row, (tuple, list)):
                out.append(self.bind(tuple(row), {}, i))
            else:
                raise self.error(f"a row of a batch is a dict or a tuple, not {row!r}"[:200], i)
        return out

    def starred(self, names: Iterable[str]) -> list[str]:
        """Argument names as `bind` gives them: a `*args` parameter as "*name"."""
        star = {p.name for p in self.signature.parameters.values()
                if p.kind is inspect.Parameter.VAR_POSITIONAL}
        return ["*" + n if n in star else n for n in names]

    def error(self, what: str, row: int | None = None) -> ArgumentError:
        where = "" if row is None else f" (row {row})"
        takes = ", ".join(str(p) for p in self.signature.parameters.values()) or "no arguments"
        return ArgumentError("SGLC001", f"{self.name}: {what}{where}", place=place_of(self.fn),
                             fixes=[f"it takes: {takes}"])


def _defaults(fn: Callable[..., Any]) -> tuple[int, int]:
    """Which objects hold a function's defaults now."""
    return id(getattr(fn, "__defaults__", None)), id(getattr(fn, "__kwdefaults__", None))


def run_options(sampling: Mapping[str, Any]) -> RunOptions:
    """Validated run-level options; LanguageError SGLC004 for a bad one."""
    return replace(RunOptions(), **config.check(dict(sampling)))


def controls(given: Mapping[str, Any]) -> Controls:
    out = Controls(**given)
    if out.mode is not None and out.mode not in MODES:
        raise LanguageError("SGLC004", f"unknown mode {out.mode!r}",
                            fixes=['use mode="compiled" or mode="eager"'])
    if out.seed is not None:
        config.check({"seed": out.seed})
    return out


def run_coroutine(body: Any) -> Any:
    """The result of an `async def` body, on an event loop of its own."""
    import asyncio
    import contextvars
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(body)
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:  # this thread's loop is running: it cannot run another
        return pool.submit(context.run, asyncio.run, body).result()


def place_of(fn: Callable[..., Any]) -> Place | None:
    """Where a function is written; of a partial or a callable object, its function."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = fn if hasattr(fn, "__code__") else getattr(type(fn), "__call__", fn)  # noqa: B004
    code = getattr(fn, "__code__", None)
    return None if code is None else Place(code.co_filename, code.co_firstlineno)
