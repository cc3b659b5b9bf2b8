"""`place += value` as one host call, for places outside the program."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from types import CellType
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """How to read and write a kind of place: (owner, key) and (owner, key, value)."""

    read: Callable[[Any, Any], Any]
    write: Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Where a name from outside lives: the globals, or a closure's cell."""

    variables: dict[str, Any]
    builtins: dict[str, Any]
    cell: CellType | None

    def read(self, name: str) -> Any:
        """The variable's value; KeyError or ValueError if it has none."""
        if self.cell is not None:
            return self.cell.cell_contents
        return self.variables[name] if name in self.variables else self.builtins[name]

    def write(self, name: str, value: Any) -> None:
        """Assign the variable."""
        if self.cell is not None:
            self.cell.cell_contents = value
        else:
            self.variables[name] = value


Item = Place(operator.getitem, operator.setitem)
Attribute = Place(getattr, setattr)
Variable = Place(Scope.read, Scope.write)


def changed(place: Place, owner: Any, key: Any, change: Callable[[Any, Any], Any],
            value: Any) -> Any:
    """The new value of a place, after it was changed in place or assigned."""
    new = change(place.read(owner, key), value)
    place.write(owner, key, new)
    return new
