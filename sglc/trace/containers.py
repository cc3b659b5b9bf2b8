"""Hooks for lists, dicts and sets that the body makes.

They are Python's own while tracing.  One that is handed to a host call, or stored outside, is
made real there: from then on the body's name for it stands for an opaque run-time value, so that
whatever the host does with it is seen.  Others hold it by identity (`session.handed`); the
tracing-time object is emptied, so that code without a hook cannot take it for what it was.
"""

from __future__ import annotations

import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from sglc.lang.expressions import Expr
from sglc.trace.bound_methods import VIEWS, owner_of
from sglc.trace.breaks import NotMergeable
from sglc.trace.computing import same
from sglc.trace.hosts import dict_of, sequence_of, set_of, unpacked
from sglc.trace.objects import ITEMS
from sglc.trace.of_states import holds_state
from sglc.trace.session import Session
from sglc.trace.symbols import Partial
from sglc.trace.values import run_time_symbol, traced

OWN = (list, dict, set)


class Vanished(Partial):
    """What a container holds once it was handed over."""

    __slots__ = ()

    def refuse(self, *args: Any) -> Any:
        raise self._session.broken(
            "SGLC113", "a container that was handed to a host call is used in a way that cannot "
            "be traced", fixes=("hand it a copy: list(...) or dict(...)",))

    __bool__ = __len__ = __iter__ = __getitem__ = __call__ = __contains__ = refuse
    __add__ = __radd__ = __mul__ = __eq__ = __lt__ = __gt__ = refuse  # type: ignore[assignment]
    __str__ = __repr__ = __format__ = __index__ = refuse  # type: ignore[assignment]
    __hash__ = object.__hash__


class Containers(ABC):
    """The hooks for containers."""

    session: Session

    @abstractmethod
    def iterate(self, value: Any) -> Any:
        """What a loop over a value goes through."""

    @abstractmethod
    def item(self, value: Any, key: Any) -> Any:
        """`value[key]`."""

    @abstractmethod
    def opaque(self, value: Any, *names: str) -> Any:
        """A value, as one of the run if such a special method of it is not for the trace."""

    def now(self, value: Any) -> Any:
        """The value, or what stands for it since it was handed to a host call."""
        handed = self.session.handed
        if not handed:
            return value
        if type(value) in VIEWS and id(owner := owner_of(value)) in handed:
            name = VIEWS[type(value)]
            return self.session.host(name, getattr(dict, name), owner)
        found = handed.get(id(value))
        return value if found is None else found[1]

    # -- handing over ---------------------------------------------------------------------
    def hand(self, value: Any) -> None:
        """Make a container of the body real, those inside it, and what a method is bound to."""
        owner = owner_of(value)
        if owner is not None:
            value = owner
        if type(value) is tuple:
            for part in value:
                self.hand(part)
        if type(value) not in OWN or id(value) in self.session.handed:
            return
        for part in list(value.values() if type(value) is dict else value):
            self.hand(part)
        real = self.session.host(type(value).__name__, same, value)
        self.session.handed[id(value)] = (value, real)
        value.clear()
        gone = Vanished(self.session)
        if type(value) is dict:
            value[None] = gone
        else:
            (value.append if type(value) is list else value.add)(gone)

    def hand_holder(self, value: Any) -> None:
        """Make a container real if a run-time choice of its items may give one that changes."""
        items = value.values() if type(value) is dict else value
        if type(value) in (*OWN, tuple) and any(
                type(v) in OWN or (type(v) is tuple and holds_own(v)) for v in items):
            self.hand(value)

    def hand_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hand over what a host call may change or keep.

        A display in the call, which nothing else refers to, is made anew at run time instead.
        """
        for i in range(len(args)):
            references = sys.getrefcount(args[i])
            self._handed_over(args[i], references)
        for key in kwargs:
            references = sys.getrefcount(kwargs[key])
            self._handed_over(kwargs[key], references)

    def _handed_over(self, value: Any, references: int) -> None:
        """references: what sys.getrefcount says if only what holds the value refers to it: 2."""
        if type(value) not in (*OWN, tuple):
            self.hand(value)  # it may be a method of one
            return
        if references > 2 and type(value) is not tuple:
            self.hand(value)
            return
        keys: Any = list(value) if type(value) is dict else range(len(value))
        for key in keys if type(value) is not set else ():
            references = sys.getrefcount(value[key])
            self._handed_over(value[key], references)

    # -- displays -------------------------------------------------------------------------
    def made_dict(self, *pairs: tuple[Any, ...]) -> Any:
        """`{key: value, **mapping}`; a mapping is a tuple of one."""
        pairs = tuple((self.opaque(self.now(p[0]), "keys", *ITEMS),) if len(p) == 1
                      else tuple(map(self.now, p)) for p in pairs)
        if any(map(holds_state, pairs)):  # the run knows none of these
            pairs = tuple((self.session.concrete(p[0], "a key"), p[1]) if len(p) == 2 else p
                          for p in pairs)
        if any(run_time_symbol(p[0]) for p in pairs):
            self._own_values(pairs)
            return self.session.host("dict", dict_of, *pairs)
        out: dict[Any, Any] = {}
        for pair in pairs:
            if len(pair) == 1:
                out.update((k, self.item(pair[0], k)) for k in self.iterate(pair[0]))
            else:
                out[pair[0]] = pair[1]
        return out

    def made_set(self, *items: Any) -> Any:
        """`{item, ...}`."""
        if any(map(run_time_symbol, items)):
            self._own_values((items,))
            return self.session.host("set", set_of, *items)
        return set(items)

    def made_sequence(self, kind: str, *parts: tuple[Any, bool]) -> Any:
        """`[item, *items]` or a tuple of them; parts: a value, and whether it is starred."""
        parts = tuple((self.now(v), star) for v, star in parts)
        if any(star and run_time_symbol(v) for v, star in parts):
            self._own_values((tuple(v for v, _ in parts),))
            return self.session.host(kind, sequence_of, kind, [s for _, s in parts],
                                     *[v for v, _ in parts])
        out: list[Any] = []
        for value, star in parts:
            if star:
                out.extend(self.iterate(value))
            else:
                out.append(value)
        return out if kind == "list" else tuple(out)

    def _own_values(self, values: tuple[Any, ...]) -> None:
        for group in values:
            for value in group:
                self.hand(value)

    # -- taking apart ---------------------------------------------------------------------
    def unpack(self, value: Any, before: int, after: int | None) -> Any:
        """The parts of a value: `before` of them, then, where there is a star, a list of the
        rest and `after` more."""
        value = self.opaque(self.now(value), *ITEMS)
        if run_time_symbol(value):
            parts = self.session.host("unpack", unpacked, value, before, after)
            n = before if after is None else before + 1 + after
            name = "character" if value.is_text and after is None else "getitem"
            return [self.session.host(name, operator.getitem, parts, i) for i in range(n)]
        return unpacked(list(self.iterate(value)), before, after)

    def walk(self, value: Any) -> Iterator[Any]:
        """The items of a container of the body, for a loop."""
        for item in value:
            self.session.count_step()
            yield item
            if id(value) in self.session.handed:
                raise self.session.broken(
                    "SGLC113", f"a {type(value).__name__} is handed to Python that is not traced, "
                    "inside a loop over it", fixes=("loop over a copy: list(...)",))

    # -- removing -------------------------------------------------------------------------
    def delete_item(self, container: Any, key: Any) -> None:
        """`del container[key]`."""
        container = self.own(container, key)
        if type(container) in OWN:
            del container[key]
        else:
            self.session.host("delitem", operator.delitem, container, key)

    def delete_attribute(self, owner: Any, name: str) -> None:
        """`del owner.name`."""
        if traced(owner) or isinstance(owner, Expr):
            raise self.session.broken("SGLC113", "an attribute of a prompt state is deleted")
        self.session.host("delattr", delattr, self.now(owner), name)

    def own(self, container: Any, key: Any) -> Any:
        """A container that is about to be changed at `key`: real if the key is a run-time one."""
        container = self.now(container)
        if type(container) not in OWN:
            return container
        if self.session.depth:  # arms that are traced both must not change it
            raise NotMergeable
        if run_time_symbol(key) or (isinstance(key, slice) and any(
                map(run_time_symbol, (key.start, key.stop, key.step)))):
            self.hand(container)
        return self.now(container)


def holds_own(value: tuple[Any, ...]) -> bool:
    """Whether there is a container that may change in a tuple."""
    return any(type(v) in OWN or (type(v) is tuple and holds_own(v)) for v in value)
