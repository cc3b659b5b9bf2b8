"""Containers that stand for real ones while a body is traced: known in part, changed at run time.

What else stands for a value is in `symbols.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any

from sglc.ir.module import Value
from sglc.trace.guards import Recipe
from sglc.trace.symbols import Sym

if TYPE_CHECKING:
    from sglc.trace.session import Session


class Frozen:
    """A list, tuple, dict or set from outside (an argument, a global), or of run-time values.

    Reading it is tracing; changing it is a host call on the real object.  operand: the IR value
    that is the real object, for an argument; argument: how to get at it from the arguments;
    read: gives the real object, for a global.  live: it was changed during the run.  seen: how
    many host calls had been made when its contents were last known to be as here.
    """

    __slots__ = ("argument", "elements", "kind", "live", "names", "operand", "read",
                 "seen", "session", "what")
    __sglc_symbolic__ = True

    def __init__(self, session: Session, kind: type, elements: list[Any], names: list[Any] | None,
                 what: str, *, operand: Value | None = None, argument: Recipe | None = None,
                 read: Callable[[], Any] | None = None) -> None:
        self.session = session
        self.kind = kind
        self.elements = elements
        self.names = names  # the keys of a dict
        self.what = what
        self.operand = operand
        self.argument = argument
        self.read = read
        self.live = False
        self.seen = session.hosts

    def _now(self) -> list[Any]:
        self.session.fresh(self)
        return self.elements

    def __len__(self) -> int:
        return len(self._now())

    def __bool__(self) -> bool:
        return bool(self._now())

    def __iter__(self) -> Iterator[Any]:
        i, n = 0, len(self._now())
        while i < len(self._now()):  # as Python's own iterator: the list may change meanwhile
            yield (self.elements if self.names is None else self.names)[i]
            i += 1
            if self.kind in (dict, set) and len(self._now()) != n:
                raise self.session.broken("SGLC111", f"{self.what} changes its size in a loop over "
                                                     "it", raises=True)

    def __getitem__(self, key: Any) -> Any:
        elements = self._now()
        if isinstance(key, Sym):
            if key.recipe is None:
                return self.session.host("getitem", operator.getitem, self, key)
            key = self.session.concrete(key, "an index")
        if self.names is not None:
            if key not in self.names:
                raise self.session.broken("SGLC111", f"the key {key!r} is not in {self.what}",
                                          raises=True)
            return elements[self.names.index(key)]
        if isinstance(key, slice):
            return self.kind(elements[key])
        try:
            return elements[key]
        except IndexError:
            raise self.session.broken("SGLC111", f"index {key!r} is out of range of {self.what}",
                                      raises=True) from None

    def __contains__(self, other: Any) -> bool:
        elements = self._now()
        if self.names is not None:
            return other in self.names
        return any(x is other or bool(x == other) for x in elements)

    def __add__(self, other: Any) -> Any:
        return self.kind(self._now()) + self._plain(other)

    def __radd__(self, other: Any) -> Any:
        return other + self.kind(self._now())

    def _plain(self, other: Any) -> Any:
        return other.kind(other._now()) if isinstance(other, Frozen) else other

    def __eq__(self, other: Any) -> bool:
        raise self.session.need(self, "a comparison")

    def __hash__(self) -> int:
        raise self.session.need(self, "its hash")

    def __str__(self) -> str:
        raise self.session.need(self, "its text")

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.names is not None and name in _VIEWS:
            return MethodType(_VIEWS[name], self)
        if self.names is not None and name == "get":
            return self._get
        if name in ("index", "count") and self.kind in (list, tuple):
            return getattr(self, "_" + name)
        if not hasattr(self.kind, name):
            raise self.session.broken("SGLC111", f"{self.what} has no attribute {name!r}",
                                      raises=True)
        if self.operand is None and self.read is None:
            raise self.session.broken(
                "SGLC113", f"the method .{name}() of {self.what} may change it",
                fixes=("work on a copy: list(...) or dict(...)",))
        return HostMethod(self, name)

    def _index(self, *args: Any) -> Any:
        return self._look("index", args)

    def _count(self, *args: Any) -> Any:
        return self._look("count", args)

    def _look(self, name: str, args: tuple[Any, ...]) -> Any:
        items = self._now()
        if args and self.session.by_identity(args[0], items):
            return self.session.host(name, getattr(self.kind, name), self, *args)
        return getattr(list(items), name)(*args)

    def _keys(self) -> list[Any]:
        self._now()
        return list(self.names or ())

    def _values(self) -> list[Any]:
        return list(self._now())

    def _items(self) -> list[tuple[Any, Any]]:
        elements = self._now()
        return list(zip(self.names or (), elements, strict=True))

    def _get(self, key: Any, default: Any = None) -> Any:
        if isinstance(key, Sym) and key.recipe is None:
            return self.session.host("get", dict.get, self, key, default)
        return self[key] if key in self else default


def keys(table: Frozen) -> Any:
    return dict(table._items()).keys()


def values(table: Frozen) -> Any:
    return dict(table._items()).values()


def items(table: Frozen) -> Any:
    return dict(table._items()).items()


_VIEWS = {"keys": keys, "values": values, "items": items}
"""Methods of a dict from outside that give views, as their texts show."""


class HostMethod:
    """A method of a container from outside that may change it: called at run time."""

    __slots__ = ("name", "receiver")
    __sglc_symbolic__ = True

    def __init__(self, receiver: Frozen, name: str) -> None:
        self.receiver = receiver
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        receiver = self.receiver
        receiver.live = True
        return receiver.session.host(self.name, getattr(receiver.kind, self.name), receiver,
                                     *args, **kwargs)
