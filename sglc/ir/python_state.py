"""What writing a program as Python keeps track of: names, states, forks, arms of branches."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from sglc.errors import IRError, Place
from sglc.ir.module import Operand, Value
from sglc.ir.python_source import Add, Line, Statement


def unwritable(what: str, place: Place | None) -> IRError:
    return IRError("SGLC008", f"{what} cannot be written as Python", place=place,
                   fixes=("write the module as traced: to_python(compiled.stages['traced'])",
                          "print it as IR instead"))


class Names:
    """Python names that are not taken."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = {"sgl", *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *taken}

    def fresh(self, hint: str, first: str = "{}") -> str:
        base = re.sub(r"\W+", "_", hint) or "x"
        base = base if base.isidentifier() else f"x_{base}"
        name, number = first.format(base), 0
        while name in self.taken or not name.isidentifier():
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name


@dataclass(slots=True)
class Group:
    """The states of a fork: `name[i]`, joined into `owner`."""

    name: str
    owner: str
    size: int


@dataclass(slots=True)
class Arm:
    """An arm of a branch (or the whole body) while it is written.

    holders: for each prompt the state variables that are at it; the first one goes on along the
    spine.  defined: which value a variable of a state has now.  born: after how many statements a
    prompt was reached.
    """

    holders: dict[Value, list[str]]
    defined: dict[tuple[str, object], Value]
    born: dict[Value, int] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)


def is_beside(statement: Statement, state: str) -> bool:
    """Whether a statement only forks states, or adds to another one."""
    if isinstance(statement, Add):
        return statement.state != state
    return isinstance(statement, Line) and ".fork(" in statement.text


def is_item_of_argument(operand: Operand) -> bool:
    """Whether the value is taken out of an argument: the trace relies on it being there."""
    while isinstance(operand, Value) and operand.op is not None:
        if operand.op.attrs.get("fn") != "getitem":
            return False
        operand = operand.op.operands[0]
    return isinstance(operand, Value)
