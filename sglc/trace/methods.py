"""Hooks for methods of texts and containers that a body has.

They are Python's own while tracing, or operations and host calls where what they are given is
known to the run only.  Methods of values of the run are for their symbols.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from sglc.ir import compute
from sglc.trace.blocks import Blocks
from sglc.trace.objects import ITEMS, TEXT, acts_inside
from sglc.trace.sequences import Seq
from sglc.trace.symbols import Sym, contains_symbol
from sglc.trace.values import kind_of, run_time, run_time_symbol

if TYPE_CHECKING:
    from sglc.trace.session import Session

_TAKE_ITEMS = frozenset({
    "difference", "difference_update", "extend", "intersection", "intersection_update",
    "isdisjoint", "issubset", "issuperset", "join", "symmetric_difference",
    "symmetric_difference_update", "union", "update"})


class Methods(Blocks):
    """The hooks for methods of what the body made."""

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


def join_texts(session: Session, separator: str, items: list[Any]) -> Any:
    """`separator.join(items)` of items that are known, with texts that are not."""
    out: Any = ""
    for i, item in enumerate(items):
        if not (isinstance(item, str) or (isinstance(item, Sym) and item.is_text)):
            if isinstance(item, Sym) and item.recipe is None:
                return session.host("join", separator.join, items)
            raise session.broken("SGLC111", f"join() of {kind_of(item)}")
        out = item if i == 0 else out + separator + item
    return out


def format_template(session: Session, template: str, args: tuple, kwargs: dict) -> Any:
    """`template.format(...)`; a host call where it goes into its arguments."""
    parts: list[Any] = []
    auto = 0
    try:
        for text, name, spec, conversion in string.Formatter().parse(template):
            if text:
                parts.append(text)
            if name is None:
                continue
            if name == "":
                name, auto = str(auto), auto + 1
            value = args[int(name)] if name.isdigit() else kwargs[name]
            if "{" in (spec or ""):
                raise ValueError
            parts.append((value, conversion or "", spec or ""))
    except (ValueError, IndexError, KeyError):
        return session.host("format", str.format, template, *args, **kwargs)
    return session.format(parts)
