"""Tracing a program: Python function in, `ir.Module` out, with the guards it holds under."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from sglc.errors import Diagnostic, Place, SglcError, users_place
from sglc.ir import types
from sglc.ir.builder import Builder
from sglc.ir.module import Lit, Module, Operand, Program
from sglc.trace.arguments import spread
from sglc.trace.breaks import GraphBreak, NotMergeable, PathEnd
from sglc.trace.explore import Recorder
from sglc.trace.frozen import Frozen
from sglc.trace.functions import Coroutine, CoroutineFunction
from sglc.trace.guards import MISSING, Guard, OutsideGuard
from sglc.trace.hooks import Hooks
from sglc.trace.hosts import HostCall
from sglc.trace.loop_ops import drop_unread
from sglc.trace.loop_rewrite import LoopRewrite
from sglc.trace.outside import type_of
from sglc.trace.rewrite import instantiate, rewrite
from sglc.trace.sequences import Seq
from sglc.trace.session import Session
from sglc.trace.state import TraceState
from sglc.trace.symbols import Sym

MAX_INLINE_DEPTH = 64


@dataclass(slots=True)
class Trace:
    """A traced program.

    calls: its host calls.  breaks: where paths end in a `prompt.break`.  guards: facts about the
    arguments, outside: about everything else; both must hold for the module to stand for the
    program.  names: observable variables in order.
    """

    module: Module
    guards: tuple[Guard, ...] = ()
    outside: tuple[OutsideGuard, ...] = ()
    names: tuple[Any, ...] = ()
    assumed: dict[str, int] = field(default_factory=dict)
    paths: int = 1
    calls: tuple[HostCall, ...] = ()
    breaks: tuple[Diagnostic, ...] = ()


class Tracer:
    """Traces one variant of one program.

    arguments: parameter name (a `*args` parameter as "*name") -> example value, or MISSING.
    given: the outcomes of the path's first events, to trace on after a break; known: what the
    trace before had read from outside; lengths: what to assume for arguments that are MISSING.
    dynamic: trace loops over arguments for any length.
    """

    def __init__(self, fn: Any, arguments: Mapping[str, Any], given: Sequence[Any] = (),
                 known: Sequence[OutsideGuard] = (),
                 lengths: Mapping[str, int] | None = None, dynamic: bool = False) -> None:
        self.fn = fn
        self.dynamic = dynamic
        self.known = {g.name: g for g in known}
        self.arguments = arguments
        self.given = given
        self.lengths = lengths or {}
        self._rewritten: dict[FunctionType, FunctionType] = {}
        self._depth = 0
        self._paths: list[tuple[int, ...]] = []
        self.session: Session

    def trace(self) -> Trace:
        """The trace; GraphBreak where the tracer must give up.

        Errors that the program itself would raise at once (a bad parameter, a nested role) also
        break: the eager interpreter raises them where they belong.
        """
        fn = self.fn
        if isinstance(fn, MethodType):
            fn = fn.__func__
        if not isinstance(fn, FunctionType):
            raise GraphBreak("SGLC114", f"{fn!r} is not a plain function")
        place = Place(fn.__code__.co_filename, fn.__code__.co_firstlineno)
        program = Program(fn.__name__, [(name.lstrip("*"), _type(v))
                                        for name, v in self.arguments.items()], loc=place)
        recorder = Recorder(Builder(program.body), self.given)
        self.session = session = Session(recorder, place.file, self.known)
        session.lengths = self.lengths
        session.dynamic = self.dynamic
        while not recorder.complete:
            session.restart()
            recorder.finish(self._one_path(program))
        if len(session.left) == recorder.paths:
            raise session.left[0]
        recorder.merge()
        if self.dynamic:
            drop_unread(program)
        program.returns = tuple("_" if n is None else str(n) for n in session.names)
        if session.assumed:
            program.attrs["assumed"] = tuple(f"{k}={v}" for k, v in session.assumed.items())
        return Trace(Module([program]), tuple(session.guards), tuple(session.outside.values()),
                     tuple(session.names), dict(session.assumed), recorder.paths,
                     tuple(session.calls), tuple(session.breaks))

    def _one_path(self, program: Program) -> tuple[Operand, Operand]:
        """A path's results.  GraphBreak where it cannot be traced, unless it may be left to the
        run: then it ends in a break."""
        session = self.session
        try:
            return self._path(program)
        except GraphBreak as e:
            if not session.may_leave or session.root is None:
                raise
            session.leave_to_run(e)
            return session.root(), Lit(None)

    def _path(self, program: Program) -> tuple[Operand, Operand]:
        session = self.session
        values = {name: session.argument(name, arg, example) for arg, (name, example) in zip(
            program.args, self.arguments.items(), strict=True)}
        self._paths, self._depth = [()], 0
        root = session.emit("prompt.root", (), {}, (types.PROMPT,))
        state = TraceState(session, root.results[0], observable=True)
        session.root = lambda: state._prompt
        session.bind_changed = state.bind_changed
        try:
            value = self._run(self.fn, state, values)
            state.bind_changed()
            returned = self._returned(value)
            session.passed(returned)  # a run fails with its value
            session.check_alone()
        except PathEnd:
            return state._prompt, Lit(None)
        except SglcError as e:
            raise GraphBreak("SGLC111", f"the program raises {e.code}",
                             place=e.diagnostic.place or users_place(e.__traceback__),
                             why=e.diagnostic.what, raises=True) from e
        except RecursionError as e:
            raise GraphBreak("SGLC120", "the program recurses too deeply",
                             place=users_place(e.__traceback__)) from None
        except (GraphBreak, NotMergeable):
            raise
        except Exception as e:  # the program's own error, or one that symbols cause
            raise GraphBreak("SGLC111", f"tracing raises {type(e).__name__}: {e}",
                             place=users_place(e.__traceback__), raises=True) from e
        return state._prompt, returned

    def _run(self, fn: FunctionType, state: TraceState, values: Mapping[str, Any]) -> Any:
        given, keywords = spread(fn, values)
        positional = [state, *given]
        if isinstance(fn, MethodType):
            fn, positional = fn.__func__, [fn.__self__, *positional]
        if isinstance(fn, CoroutineFunction):
            fn = fn.fn
        result = self.inline(fn, tuple(positional), keywords)
        return self.session.run_async(result.run) if isinstance(result, Coroutine) else result

    def inline(self, fn: FunctionType, args: tuple, kwargs: dict) -> Any:
        """Run a function's rewritten form: it becomes part of the trace."""
        if self._depth >= MAX_INLINE_DEPTH:
            raise self.session.broken("SGLC120", "functions are nested too deeply")
        if "__sglc__" in fn.__globals__:
            return fn(*args, **kwargs)  # of a program in the body, rewritten with it
        hooked = self._rewritten.get(fn)
        if hooked is None:
            rewritten = rewrite(fn, LoopRewrite if self.dynamic else None)
            hooked = self._rewritten[fn] = instantiate(
                rewritten.code, fn, Hooks(self, fn, rewritten))
        try:
            inspect.signature(fn, follow_wrapped=False).bind(*args, **kwargs)
        except TypeError as e:
            raise self.session.broken("SGLC111", f"{fn.__name__}(): {e}") from None
        self.session.read_outside(f"{fn.__qualname__}:__code__@{id(fn)}",
                                  partial(getattr, fn, "__code__"))  # a reload edits it
        defaults = (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())
        for value in defaults if self._depth else ():  # the program's own are arguments
            if not isinstance(value, (str, int, float, bool, type(None), tuple)):
                raise self.session.broken("SGLC111", f"{fn.__name__}() has a default that could "
                                                     "change")
        if defaults and self._depth:  # guarded: they may be edited
            for name in ("__defaults__", "__kwdefaults__"):
                self.session.read_outside(f"{fn.__qualname__}:{name}@{id(fn)}",
                                          partial(getattr, fn, name))

        def run() -> Any:
            self._depth += 1
            try:
                return hooked(*args, **kwargs)
            finally:
                self._depth -= 1

        return Coroutine(run) if inspect.iscoroutinefunction(fn) else run()

    def call_program(self, program: Any, args: tuple, kwargs: dict) -> TraceState:
        """A program called in the body of another: traced in, on a prompt of its own."""
        session = self.session
        signature = program.signature
        values, sampling, control = signature.split(kwargs, batch=False)
        if sampling or control:
            raise session.broken("SGLC111", "a nested call has run options of its own",
                                 fixes=("give them to the gens of that program",))
        for name, value in signature.bound.items():
            if not isinstance(value, (str, int, float, bool, type(None))):
                raise session.broken("SGLC111", f"the bound argument {name!r} of "
                                                f"{signature.name} could change")
        try:
            bound = signature.bind(args, values)
        except SglcError as e:
            raise session.broken("SGLC111", e.diagnostic.what) from e
        if session.frames:
            raise session.broken("SGLC110", "a program is called in a loop of run-time length")
        path = (*self._paths[-1], session.nested[-1], -1)
        session.nested[-1] += 1
        root = session.emit("prompt.root", (), {}, (types.PROMPT,))
        state = TraceState(session, root.results[0], path)
        session.nested.append(0)
        self._paths.append(path)
        try:
            state._returned = self._run(program.fn, state, bound)
        finally:
            session.nested.pop()
            self._paths.pop()
        return state

    def _returned(self, value: Any) -> Operand:
        """The operand of what the body returned: a value, or plain containers of values."""
        session = self.session
        if id(value) in session.handed:
            value = session.handed[id(value)][1]
        if isinstance(value, Frozen):
            value = value.kind(value._values()) if value.names is None else dict(
                value._items())
        if isinstance(value, (Sym, Seq, str, int, float, bool, type(None))):
            return session.operand(value)
        if type(value) is list:
            return session.emit("prompt.list", [self._returned(v) for v in value], {},
                                (types.JSON,)).results[0]
        if type(value) in (tuple, set, dict):
            flat = [x for pair in value.items() for x in pair] if type(value) is dict else value
            return session.emit("prompt.compute", [self._returned(v) for v in flat],
                                {"fn": type(value).__name__}, (types.JSON,)).results[0]
        raise session.broken("SGLC111", f"the program returns a {type(value).__name__}")


def _type(example: Any) -> types.Type:
    if example is MISSING:
        return types.TEXT
    if example is None or not isinstance(example, (str, int, float, bool, list, tuple, dict)):
        return types.ANY
    return type_of(example)
