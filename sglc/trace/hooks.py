"""What rewritten code calls instead of doing things itself (see `rewrite.py`).

The rule for calls: sglc's own primitives, programs and functions that are handed a prompt state
are traced through; known-pure functions on concrete values run; everything else breaks the graph.
Nothing of unknown purity ever runs while tracing.

Attributes and the choice between these are here.  What `Hooks` derives from has a module for each
other kind of Python: `pure_calls`, `methods`, `blocks`, `changes`, `operators`, `functions`,
`bindings`, `containers`.
"""

from __future__ import annotations

import inspect
import operator
import sys
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from sglc.lang.expressions import Expr
from sglc.trace.containers import OWN
from sglc.trace.frozen import Frozen, HostMethod
from sglc.trace.hosts import call as call_value
from sglc.trace.objects import ITEMS, has_own
from sglc.trace.of_states import THROUGH, holds_state, picked, through_states
from sglc.trace.primitives import (
    PRIMITIVES,
    TAKES_PARAMETERS,
    builds_prompts,
    is_hashable,
    pinned_parameters,
)
from sglc.trace.pure_calls import PURE, PureCalls
from sglc.trace.rewrite import Rewritten
from sglc.trace.symbols import Method, Sym, contains_symbol, is_symbolic
from sglc.trace.values import CONTAINERS, kind_of, run_time_symbol, traced

if TYPE_CHECKING:
    from sglc.trace.tracer import Tracer

_FRAMES = frozenset({sys._getframe, inspect.currentframe, inspect.stack})
_NOBODY = object()  # the owner of what is no method
_METHODS = (BuiltinFunctionType, MethodType, MethodWrapperType)


def _binds(fn: Any) -> bool:
    """Whether a call makes a program of one with some arguments fixed."""
    return isinstance(fn, MethodType) and fn.__name__ == "bind" and hasattr(
        type(fn.__self__), "__sglc_program__")


class Hooks(PureCalls):
    """The hooks of one function: where it reads outside names, and the tracer it belongs to."""

    def __init__(self, tracer: Tracer, fn: FunctionType, rewritten: Rewritten) -> None:
        self.tracer = tracer
        self.statements = [(o, o.function(fn)) for o in rewritten.outlined]
        self.nested = rewritten.nested
        self.names = rewritten.names
        self.session = tracer.session
        self.fn = fn
        self.cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))

    # -- attributes -----------------------------------------------------------------------
    def attribute(self, value: Any, name: str) -> Any:
        value = self.now(value)
        if isinstance(value, (Sym, Frozen)):
            if name.startswith("__") and run_time_symbol(value):
                return self.session.host("getattr", getattr, value, name)
            return type(value).__getattr__(value, name)  # never the symbol's own fields
        if traced(value) or is_symbolic(value) or isinstance(value, Expr):
            return getattr(value, name)
        if isinstance(value, CONTAINERS) and (type(value) in OWN
                                              or not isinstance(value, OWN)):
            return getattr(value, name)
        if isinstance(value, ModuleType):
            return self.session.read_outside(f"{value.__name__}.{name}",
                                             lambda: getattr(value, name))
        static = inspect.getattr_static(type(value), name, None)
        if isinstance(static, (FunctionType, MethodDescriptorType)):
            return getattr(value, name)  # a method: whether it may be called is for `call`
        plain = type(value).__getattribute__ is object.__getattribute__ and (
            has_own(value, name) or not hasattr(type(value), "__getattr__"))
        if plain and (name in getattr(value, "__dict__", ()) or not hasattr(static, "__get__")):
            return self.session.read_outside(f"{kind_of(value)}@{id(value)}.{name}",
                                             lambda: getattr(value, name))
        return self.session.host("getattr", getattr, value, name)

    # -- calls ----------------------------------------------------------------------------
    def call(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        session, tracer = self.session, self.tracer
        if session.handed:
            fn = self.now(fn)
            args = tuple(map(self.now, args))
            kwargs = {k: self.now(v) for k, v in kwargs.items()}
        if hasattr(type(fn), "__sglc_program__"):
            return tracer.call_program(fn, args, kwargs)
        if _binds(fn):
            if any(map(contains_symbol, kwargs.values())):
                raise session.broken("SGLC112", "a program is made with a value of the run",
                                     fixes=("give the value where the program is called",))
            return fn(*args, **kwargs)
        if is_hashable(fn) and fn in PRIMITIVES:
            if fn in TAKES_PARAMETERS:
                args, kwargs = pinned_parameters(session, fn, args, kwargs)
            return fn(*args, **kwargs)
        if isinstance(fn, (Method, HostMethod)) or traced(fn):
            if isinstance(fn, HostMethod):
                self.hand_arguments(args, kwargs)
            return fn(*args, **kwargs)
        if isinstance(fn, Sym):
            self.hand_arguments(args, kwargs)
            return session.host("call", call_value, fn, *args, **kwargs)
        owner = fn.__self__ if isinstance(fn, _METHODS) else _NOBODY
        if session.handed and id(owner) in session.handed:  # a method taken before
            self.hand_arguments(args, kwargs)
            return session.host(fn.__name__, getattr(type(owner), fn.__name__), owner, *args,
                                **kwargs)
        if traced(owner) or is_symbolic(owner):
            return fn(*args, **kwargs)
        if isinstance(fn, FunctionType) and fn.__globals__.get("__sglc__") is not None:
            return fn(*args, **kwargs)  # a function of the body itself
        if isinstance(fn, FunctionType) and hasattr(fn, "__sglc_decorator__"):
            return fn(*args, **kwargs)  # it makes a program of a function of the body
        if isinstance(owner, CONTAINERS) and not isinstance(fn, MethodType) and (
                type(owner) in OWN or not isinstance(owner, OWN)):
            return self._container_method(fn, owner, args, kwargs)
        if session.dynamic and is_hashable(fn):
            found = session.builtin(fn, args, kwargs)
            if found is not NotImplemented:
                return found
        if is_hashable(fn) and fn in PURE:
            return self._pure(fn, args, kwargs)
        if is_hashable(fn) and fn in THROUGH:
            found = through_states(self, fn, args, kwargs)
            if found is not NotImplemented:
                return found
        if type(fn) is operator.itemgetter and len(args) == 1 and holds_state(args[0]):
            return picked(self, fn, args[0])
        handed = any(traced(a) for a in (*args, *kwargs.values()))
        if isinstance(fn, FunctionType) and (handed or builds_prompts(fn)):
            return tracer.inline(fn, args, kwargs)
        called = inspect.getattr_static(type(fn), "__call__", None)
        if isinstance(called, FunctionType):  # an object with __call__
            fn = MethodType(called, fn)
        method = isinstance(fn, MethodType) and isinstance(fn.__func__, FunctionType)
        if method and (handed or builds_prompts(fn.__func__, fn.__self__)):
            return tracer.inline(fn.__func__, (fn.__self__, *args), kwargs)
        name = getattr(fn, "__name__", None) or kind_of(fn)
        if handed or any(isinstance(a, Expr) for a in (*args, *kwargs.values())):
            raise session.broken(
                "SGLC112", f"{name}() is handed a prompt, and is no function the tracer can "
                "follow")
        if is_hashable(fn) and fn in _FRAMES:
            raise session.broken("SGLC111", f"{name}() looks at the frames of the program")
        if fn is not print:
            self.hand_arguments(args, kwargs)
        return session.host(name, fn, *args, **kwargs)

    def mapping(self, value: Any) -> Any:
        """What `**value` in a call gives."""
        value = self.opaque(self.now(value), "keys", *ITEMS)
        return self.session.concrete(value, "the keywords") if run_time_symbol(value) else value
