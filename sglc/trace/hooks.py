"""What rewritten code calls instead of doing things itself (see `rewrite.py`).

The rule for calls: sglc's own primitives, programs and functions that are handed a prompt state
are traced through; known-pure functions on concrete values run; everything else breaks the graph.
Nothing of unknown purity ever runs while tracing.
"""

from __future__ import annotations

import inspect
import json
import math
import operator
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from sglc.errors import Place
from sglc.ir import compute, types
from sglc.lang.expressions import Expr
from sglc.trace.bound_methods import only_looks, owner_of
from sglc.trace.breaks import GraphBreak
from sglc.trace.choosing import chosen
from sglc.trace.containers import OWN, run_time_symbol
from sglc.trace.frozen import Frozen, HostMethod
from sglc.trace.functions import is_module
from sglc.trace.hosts import FromOutside, ReadState, itself
from sglc.trace.hosts import call as call_value
from sglc.trace.objects import ANYTHING, ITEMS, TEXT, TRUTH, acts, acts_inside, has_own
from sglc.trace.of_states import THROUGH, holds_state, picked, through_states
from sglc.trace.operators import CONTAINERS, Operators, kind_of, outside_set, run_time, traced
from sglc.trace.outline import Outlined, bound, run_outlined
from sglc.trace.primitives import (
    PRIMITIVES,
    TAKES_PARAMETERS,
    builds_prompts,
    is_hashable,
    pinned_parameters,
)
from sglc.trace.regions import UNBOUND
from sglc.trace.rewrite import Rewritten
from sglc.trace.sequences import Seq
from sglc.trace.symbols import (
    Method,
    Sym,
    contains_symbol,
    is_symbolic,
)
from sglc.trace.text_methods import format_template, join_texts

if TYPE_CHECKING:
    from sglc.trace.tracer import Tracer

# Pure on concrete, plain values.
_PURE = frozenset({
    abs, all, any, ascii, getattr, bin, bool, bytes, chr, complex, dict, divmod, enumerate, float,
    format, frozenset, hex, int, isinstance, issubclass, iter, len, list, max, min, next, oct,
    ord, pow, range, repr, reversed, round, set, slice, sorted, str, sum, tuple, zip, type,
    json.dumps, json.loads, operator.itemgetter, re.sub, re.findall, re.split, re.escape, re.match,
    re.search, re.fullmatch, textwrap.dedent, textwrap.indent,
    *(f for f in vars(math).values() if isinstance(f, BuiltinFunctionType))})
# Of these, the ones that go through what they are given, which may have no end.
_CONSUMING = frozenset({all, any, dict, frozenset, list, max, min, set, sorted, sum, tuple})
_ORDERLESS = frozenset({all, any, frozenset, len, set, sorted})
# Those that go through their first argument, and those that ask nothing of what it holds.
_OF_ITEMS = frozenset({all, any, dict, frozenset, len, list, max, min, reversed, set, sorted, sum,
                       tuple})
_UNASKED = frozenset({dict, frozenset, issubclass, len, list, range, reversed, set, slice, tuple,
                      type})
_TAKE_ITEMS = frozenset({
    "difference", "difference_update", "extend", "intersection", "intersection_update",
    "isdisjoint", "issubset", "issuperset", "join", "symmetric_difference",
    "symmetric_difference_update", "union", "update"})
_CHOOSING = (max, min, sorted)
_PYTHON_TYPES = {"text": str, "choice": str, "int": int, "float": float, "bool": bool}
_FRAMES = frozenset({sys._getframe, inspect.currentframe, inspect.stack})
_NOBODY = object()  # the owner of what is no method
_METHODS = (BuiltinFunctionType, MethodType, MethodWrapperType)


def _binds(fn: Any) -> bool:
    """Whether a call makes a program of one with some arguments fixed."""
    return isinstance(fn, MethodType) and fn.__name__ == "bind" and hasattr(
        type(fn.__self__), "__sglc_program__")


class Hooks(Operators):
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
        if is_hashable(fn) and fn in _PURE:
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

    def _pure(self, fn: Any, args: tuple, kwargs: dict) -> Any:
        session = self.session
        if session.dynamic:
            args = tuple(a.value() if isinstance(a, Seq) else a for a in args)
        if fn in _OF_ITEMS and args:
            args = (self.opaque(args[0], *ITEMS), *args[1:])
        if fn is isinstance and len(args) == 2:
            return self._isinstance(*args)
        if fn is type and len(args) == 1 and is_symbolic(args[0]):
            return self._type(args[0])
        if fn in _CHOOSING:
            found, args = chosen(self, fn, args, kwargs)
            if found is not None:
                return found
        if fn in (list, tuple) and len(args) == 1 and run_time_symbol(args[0]):
            return session.host(fn.__name__, fn, *args)
        if fn is len and len(args) == 1:
            if isinstance(args[0], Sym) and (args[0].is_text or args[0].recipe is None):
                return session.compute("len", args[0])
            return len(args[0])
        if fn in (str, int, float, bool) and len(args) == 1 and isinstance(args[0], Sym):
            if fn is str and args[0].is_text:
                return args[0]
            if fn is bool:
                return session.truth(args[0])
            if fn is int and args[0].type == types.INT:
                return args[0]
            return session.compute(fn.__name__, args[0])
        if fn is getattr:
            value, name, *default = map(self.now, args)
            if isinstance(name, str) and default and traced(value):
                return getattr(value, name, *default)
            if isinstance(name, str) and not (default and (is_symbolic(value)
                                                           or not has_own(value, name))):
                return self.attribute(value, name)
            return session.host("getattr", getattr, *args)
        if fn is iter and len(args) == 1 and not isinstance(args[0], Sym):
            if isinstance(args[0], (Frozen, *CONTAINERS)):
                session.iterators.append(iter(self.iterate(args[0])))
                return session.iterators[-1]
            return self._own_iterator(args[0]) or session.host("iter", iter, args[0])
        if fn is iter and len(args) == 2:
            return session.host("iter", iter, *args)
        if fn is next:
            self._no_change([])
            if self._own_iterator(args[0]) is not None:
                return next(*args)
            return session.host("next", next, *args)
        if fn is range:
            args = tuple(session.host("index", operator.index, a) if acts(a, "__index__") else a
                         for a in args)
            return range(*[session.concrete_int(a, "a count") if isinstance(a, Sym) else a
                           for a in args])
        if fn in (enumerate, zip):  # lazy: what they go through may have no end
            args = tuple(self.iterate(a) if is_symbolic(a) or traced(a) or acts(a, *ITEMS) else a
                         for a in args)
            return fn(*args, **kwargs)
        if fn in (list, tuple, reversed):
            args = tuple(list(self.iterate(a)) if is_symbolic(a) or traced(a) else
                         self._rounds(a) if isinstance(a, Iterator) and fn is not reversed else a
                         for a in args)
            return fn(*args, **kwargs)
        if fn is dict and all(isinstance(a, Frozen) for a in args):
            return dict(*[a._items() for a in args], **kwargs)
        if fn is bool and args and traced(args[0]):
            return bool(*args)
        if any(traced(a) for a in args):
            raise session.broken("SGLC111", f"{fn.__name__}() of a prompt state")
        given = (*args, *kwargs.values())
        for value in given:
            if isinstance(value, Frozen):
                session.fresh(value)  # host calls may have changed it
        ordered = fn not in _ORDERLESS and any(map(outside_set, given))  # only the real one is
        asks = () if "key" in kwargs or fn in _UNASKED else TRUTH if fn in (
            all, any) else ANYTHING
        if ordered or any(run_time(a) or acts_inside(a, *asks) for a in given):
            for value in given:
                if owner_of(value) is not None and not only_looks(value):
                    self.hand(value)
                if fn in (*_CHOOSING, dict, sum):  # what they give may be what they are given
                    self.hand_holder(value if len(args) == 1 or fn is sum else [value])
            session.immediate = True
            try:
                return session.host(fn.__name__, fn, *args, **kwargs)
            finally:
                session.immediate = False
        if fn in _CONSUMING:
            args = tuple(self._rounds(iter(a)) if isinstance(a, (range, Iterator)) else a
                         for a in args)
        if any(contains_symbol(a) for a in given):
            args = tuple(self._concrete(a, f"{fn.__name__}()") for a in args)
            kwargs = {k: self._concrete(v, f"{fn.__name__}()") for k, v in kwargs.items()}
        return fn(*args, **kwargs)

    def _type(self, value: Any) -> Any:
        if isinstance(value, Frozen):
            return value.kind
        if isinstance(value, Sym) and value.type.name in _PYTHON_TYPES:
            return _PYTHON_TYPES[value.type.name]
        return self.session.host("type", type, value)

    def builds(self, value: Any) -> bool:
        return is_module(value) or (is_hashable(value) and value in PRIMITIVES) or hasattr(
            type(value), "__sglc_program__") or (
            isinstance(value, FunctionType) and builds_prompts(value))

    def mapping(self, value: Any) -> Any:
        """What `**value` in a call gives."""
        value = self.opaque(self.now(value), "keys", *ITEMS)
        return self.session.concrete(value, "the keywords") if run_time_symbol(value) else value

    def _own_iterator(self, value: Any) -> Any:
        """An iterator that the body made, or a generator of its code; else None."""
        if is_symbolic(value):
            return None
        frame = getattr(value, "gi_frame", None)
        mine = frame is not None and "__sglc__" in frame.f_globals
        return value if mine or any(i is value for i in self.session.iterators) else None

    def _concrete(self, value: Any, what: str) -> Any:
        session = self.session
        if isinstance(value, Sym):
            return session.concrete(value, f"the value, for {what},")
        if isinstance(value, Frozen):
            items = [self._concrete(v, what) for v in value._values()]
            return value.kind(items) if value.names is None else dict(
                zip(value.names, items, strict=True))
        if type(value) in (list, tuple):
            return type(value)(self._concrete(v, what) for v in value)
        if type(value) is dict:
            return {k: self._concrete(v, what) for k, v in value.items()}
        if is_symbolic(value) or traced(value):
            raise session.need(value, f"the value, for {what},")
        return value

    def _isinstance(self, value: Any, kinds: Any) -> Any:
        if isinstance(value, Frozen):
            return issubclass(value.kind, kinds)
        if isinstance(value, Sym):
            python = _PYTHON_TYPES.get(value.type.name)
            if python is None:
                return self.session.host("isinstance", isinstance, value, kinds)
            return issubclass(python, kinds)
        return isinstance(value, kinds)

    def _container_method(self, fn: Any, owner: Any, args: tuple, kwargs: dict) -> Any:
        name = fn.__name__
        if name in _TAKE_ITEMS:
            args = tuple(self.opaque(a, *ITEMS) for a in args)
        if name == "append" and type(owner) is list and len(args) == 1 and \
                self.session.append(owner, args[0]):
            return None
        if name not in ("get", "items", "keys", "values", "copy", "index", "count"):
            self._no_change(owner)
        if isinstance(owner, str):
            if name == "join" and len(args) == 1 and run_time_symbol(args[0]):
                return self.session.host(name, fn, *args)
            if name == "join" and len(args) == 1:
                if isinstance(args[0], Seq):
                    return self.session.joined(owner, args[0])
                return join_texts(self.session, owner, list(self.iterate(args[0])))
            if any(acts_inside(a, *TEXT) for a in (*args, *kwargs.values())):
                return self.session.host(name, fn, *args, **kwargs)
            if any(contains_symbol(a) for a in (*args, *kwargs.values())):
                if name == "format":
                    return format_template(self.session, owner, args, kwargs)
                if kwargs or not compute.text_method(name):
                    return self.session.host(name, fn, *args, **kwargs)
                return self.session.compute("text." + name, owner, *args)
        elif type(owner) in (list, tuple) and name in ("index", "count") and args and (
                self._looked_up(args[0], owner)):
            return self.session.host(name, getattr(type(owner), name), owner, *args)
        elif isinstance(owner, dict) and name == "get" and args and run_time(args[0]):
            self.hand_holder(owner)
            return self.session.host("get", dict.get, owner, *args)
        elif type(owner) in (dict, set) and args and run_time(args[0]):
            self.hand(owner)  # its keys are not known any more
            return self.session.host(name, getattr(type(owner), name), self.now(owner), *args)
        elif not isinstance(owner, (list, dict, set)) and any(run_time(a) for a in args):
            return self.session.host(name, fn, *args, **kwargs)
        return fn(*args, **kwargs)

    def _looked_up(self, item: Any, items: Any) -> bool:
        """Whether it is for the run to find an item in a list or tuple."""
        if isinstance(item, Sym) and item.type.name == "choice":
            return False  # its few outcomes are gone through
        return run_time(item) or self.session.by_identity(item, items)

    # -- outlined statements ----------------------------------------------------------------
    def outlined(self, number: int, *given: tuple[str, Callable[[], Any]]) -> Any:
        """A `try` statement, as one host call over the variables it reads."""
        statement, function = self.statements[number]
        names: list[str] = []
        values: list[Any] = []
        for name, get in given:
            try:
                value = get()
            except NameError:  # not bound yet
                continue
            if traced(value):
                keys = statement.reads.get(name)
                if keys is None or not hasattr(value, "get_var"):
                    raise GraphBreak("SGLC111", "a prompt state is used inside try",
                                     place=Place(self.fn.__code__.co_filename,
                                                 *statement.first_use(name)),
                                     fixes=("move what uses it out of the try",))
                value = ReadState({k: value.unread(k) for k in keys})
            elif isinstance(value, Expr):
                raise self.session.broken(
                    "SGLC113", f"a {type(value).__name__} of the program's own is used inside try")
            self.hand(value)
            names.append(name)
            values.append(value)
        for name in statement.outside:
            self._check_try(statement, name, self.fn.__globals__.get(name))
        for name in statement.closure:
            cell = self.cells[name]
            self._check_try(statement, name, cell.cell_contents)
            names.append(name)
            values.append(FromOutside(lambda c=cell: c.cell_contents))  # type: ignore[misc]
        result = self.session.host("try", run_outlined, function, tuple(names), *values)
        self.session.unsure[result.operand] = statement.unsure(names)
        return result

    def _check_try(self, statement: Outlined, name: str, value: Any) -> None:
        if self.builds(value) and not is_module(value):
            raise GraphBreak(
                "SGLC111", f"{name}, which builds prompts, is used inside try",
                place=Place(self.fn.__code__.co_filename, *statement.first_use(name)),
                fixes=("move what uses it out of the try",))

    def local(self, get: Callable[[], Any]) -> Any:
        """A local of the body, for `branch`; UNBOUND if it is not bound."""
        try:
            return get()
        except NameError:
            return UNBOUND

    def bound(self, result: Any, name: str) -> Any:
        value = self.session.host("variable", bound, result, name)
        if name in self.session.unsure.get(result.operand, ()):
            self.session.unbound.add(value.operand)
        return value

    def checked(self, value: Any) -> Any:
        """A variable that a `try` may have left unbound: Python's error where it is read."""
        if isinstance(value, Sym) and value.operand in self.session.unbound:
            self.session.host("variable", itself, value)
            self.session.unbound.discard(value.operand)
        return value
