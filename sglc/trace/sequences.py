"""Lists whose length is known at run time only, while tracing for any length.

What a body does with all items of one becomes a loop in the IR (see `loops.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglc.ir.module import Operand
from sglc.trace.symbols import Sym

if TYPE_CHECKING:
    from sglc.trace.session import Session


class Seq:
    """Items that a body goes through; it never changes.

    size: how many, an !int symbol.  pick: the item of a number.  whole: the list itself, where
    there is one.  made: the body made it (an argument could be changed by the user's Python).
    """

    __slots__ = ("made", "pick", "session", "size", "what", "whole")
    __sglc_symbolic__ = True

    def __init__(self, session: Session, size: Sym, pick: Callable[[Sym], Any], what: str,
                 whole: Sym | None = None, made: bool = False) -> None:
        self.session = session
        self.size = size
        self.pick = pick
        self.what = what
        self.whole = whole
        self.made = made

    @property
    def operand(self) -> Operand:
        """The list as an operand."""
        return self.value().operand

    def value(self) -> Sym:
        """The list as one value."""
        if self.whole is None:
            raise self.session.need(self, "the items")
        self.session.still_as_given(self)
        return self.whole

    def __getitem__(self, key: Any) -> Any:
        return self.session.item_of(self, key)

    def __bool__(self) -> bool:
        self.session.still_as_given(self)
        self.session.at_least(self.size, 1)
        return True

    def __len__(self) -> int:
        raise self.session.need(self, "the length")

    __iter__ = __len__  # type: ignore[assignment]

    def __add__(self, other: Any) -> Any:
        raise self.session.need(self, "the items")

    __radd__ = __mul__ = __contains__ = __eq__ = __add__  # type: ignore[assignment]

    def __hash__(self) -> int:
        return id(self)

    def __str__(self) -> str:
        raise self.session.need(self, "the text")

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.session.need(self, f"the method .{name}()")
