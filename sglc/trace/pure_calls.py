"""Hooks for Python's functions that only compute: `len`, `sorted`, `isinstance`, `json.dumps`.

They run while tracing where what they are given is known and plain, and else at run time.  What
may be called at all is for `hooks.py` to say.
"""

from __future__ import annotations

import json
import math
import operator
import re
import textwrap
from abc import abstractmethod
from collections.abc import Iterator
from types import BuiltinFunctionType
from typing import Any

from sglc.ir import types
from sglc.trace.bound_methods import only_looks, owner_of
from sglc.trace.choosing import chosen
from sglc.trace.frozen import Frozen
from sglc.trace.methods import Methods
from sglc.trace.objects import ANYTHING, ITEMS, TRUTH, acts, acts_inside, has_own
from sglc.trace.sequences import Seq
from sglc.trace.symbols import Sym, contains_symbol, is_symbolic
from sglc.trace.values import CONTAINERS, outside_set, run_time, run_time_symbol, traced

# Pure on concrete, plain values.
PURE = frozenset({
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
_CHOOSING = (max, min, sorted)
_PYTHON_TYPES = {"text": str, "choice": str, "int": int, "float": float, "bool": bool}


class PureCalls(Methods):
    """The hooks for calls of pure functions."""

    @abstractmethod
    def call(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """`fn(*args, **kwargs)`."""

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

    def _isinstance(self, value: Any, kinds: Any) -> Any:
        if isinstance(value, Frozen):
            return issubclass(value.kind, kinds)
        if isinstance(value, Sym):
            python = _PYTHON_TYPES.get(value.type.name)
            if python is None:
                return self.session.host("isinstance", isinstance, value, kinds)
            return issubclass(python, kinds)
        return isinstance(value, kinds)

    def _own_iterator(self, value: Any) -> Any:
        """An iterator that the body made, or a generator of its code; else None."""
        if is_symbolic(value):
            return None
        frame = getattr(value, "gi_frame", None)
        mine = frame is not None and "__sglc__" in frame.f_globals
        return value if mine or any(i is value for i in self.session.iterators) else None
