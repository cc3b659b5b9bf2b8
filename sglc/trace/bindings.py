"""Hooks for names that are not the body's own: globals, closure variables, imports.

A name that the program only reads is guarded.  One that it assigns is read and written at run
time, in the order of host calls.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from abc import abstractmethod
from types import CellType, FunctionType
from typing import Any

from sglc.trace.containers import Containers
from sglc.trace.guards import MISSING
from sglc.trace.outside import may_be_another
from sglc.trace.symbols import Sym
from sglc.trace.updates import Scope

_SCALARS = (str, int, float, bool, bytes, type(None), tuple)


class Bindings(Containers):
    """The hooks for names from outside."""

    fn: FunctionType
    cells: dict[str, CellType]

    @abstractmethod
    def attribute(self, value: Any, name: str) -> Any:
        """`value.name`."""

    def outside(self, name: str) -> Any:
        """A global or closure variable, guarded."""
        session = self.session
        key = (id(self.fn), name)
        value, hosts = session.frozen_globals.get(key, (MISSING, 0))
        if value is not MISSING and (hosts == session.hosts or not (
                type(value) in (*_SCALARS, Sym) or may_be_another(value))):
            return value
        try:
            value = session.read_outside(f"{self.fn.__qualname__}:{name}",
                                         lambda: self.variable(name).read(name))
        except (KeyError, ValueError):
            raise session.broken("SGLC111", f"the name {name!r} is not defined") from None
        session.frozen_globals[key] = value, session.hosts
        return value

    def live_name(self, name: str) -> Any:
        """A global or closure variable that the program assigns, as it is at run time."""
        session = self.session
        value, hosts = session.stored.get(self._key(name), (None, -1))
        if hosts != session.hosts:
            value = session.host("name", Scope.read, self.variable(name), name)
            session.stored[self._key(name)] = value, session.hosts
        return self.now(value)

    def store_name(self, name: str, value: Any) -> Any:
        """`global name; name = value`, or the same with `nonlocal`."""
        session = self.session
        self.hand(value)
        session.host("store", Scope.write, self.variable(name), name, value)
        session.stored[self._key(name)] = value, session.hosts
        return value

    def variable(self, name: str) -> Scope:
        """Where a name from outside lives."""
        builtins = self.fn.__builtins__  # type: ignore[attr-defined]
        return Scope(self.fn.__globals__, builtins, self.cells.get(name))

    def _key(self, name: str) -> Any:
        return id(self.cells[name]) if name in self.cells else (id(self.fn.__globals__), name)

    # -- imports --------------------------------------------------------------------------
    def imported(self, name: str, whole: str) -> Any:
        """`import name`, as the module `whole`: a guard if it is loaded already."""
        if sys.modules.get(name) is None or sys.modules.get(whole) is None:
            return self.session.host("import", import_module, name, whole)
        return self.session.read_outside(f"import:{whole}", lambda: sys.modules[whole])

    def imported_from(self, name: str, attribute: str) -> Any:
        """`from name import attribute`."""
        if name.startswith("."):
            name = importlib.util.resolve_name(name, self.fn.__globals__.get("__package__") or "")
        module = sys.modules.get(name)
        if module is None or attribute not in vars(module):
            return self.session.host("import", import_from, name, attribute)
        return self.attribute(self.imported(name, name), attribute)


def import_module(name: str, whole: str) -> Any:
    """The module `whole` after `name`, one inside it, was imported."""
    importlib.import_module(name)
    return sys.modules[whole]


def import_from(name: str, attribute: str) -> Any:
    """What `from name import attribute` binds."""
    module = __import__(name, None, None, [attribute], 0)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ImportError(f"cannot import name {attribute!r} from {name!r}") from None
