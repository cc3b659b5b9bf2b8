"""What the body reads: Python waits there, and raises if what it waits for has failed.

A read that may fail where the run's own prompt does not is an operation.  Of the others, host calls
and variables that come later tell: they wait for what was read before them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from sglc.errors import Place
from sglc.ir.module import Operand, Value
from sglc.trace.explore import Recorder
from sglc.trace.frozen import Frozen
from sglc.trace.sequences import Seq
from sglc.trace.sound import Sound
from sglc.trace.symbols import Sym


class Reading(ABC):
    """The part of a session that records reads.

    reads: values that were read since the last host call.  unchecked: those that nothing waits
    for yet, with where they were read.  alone: where the run's own prompt was, if one of these may
    fail where that does not.  sound: what the path need not doubt.  root: the run's own prompt, as
    it is now.  bind_changed: binds the variables that have changed in place.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.root: Callable[[], Operand] | None = None
        self.bind_changed: Callable[[], None] = lambda: None
        self.forget_reads()

    def forget_reads(self) -> None:
        """Begin a path at the top."""
        self.reads: dict[Value, None] = {}
        self.unchecked: dict[Value, Place | None] = {}
        self.alone: Operand | None = None
        self.sound = Sound()

    @abstractmethod
    def place(self) -> Place | None:
        """Where in the user's source the body stands now."""

    def read(self, value: Any) -> None:
        """Note that the body has waited for a value (or for all in a list)."""
        values = [v for v in _read_of(value) if not self.sound.is_read(v)]
        if values:
            self.bind_changed()  # in case it raises
        root = None if self.root is None else self.root()
        if root is not None:
            self.sound.note_own(root)
            if not all(map(self.sound.holds, values)):
                place = self.place()
                if any(p is None or place is None or p.line != place.line
                       for p in self.unchecked.values()):
                    self.check_reads()  # apart, for errors to have their places
                self.alone = root
        for v in _read_of(value):
            self.waited(v)

    def waited(self, value: Value) -> None:
        """Note one value that has been waited for."""
        self.reads[value] = None
        if not self.sound.is_read(value):
            self.unchecked.setdefault(value, self.place())

    def passed(self, value: Operand) -> None:
        """Note that the path would have ended here if a value had failed."""
        self.sound.note_read(value)
        for read in [v for v in self.unchecked if self.sound.is_read(v)]:
            del self.unchecked[read]

    def check_alone(self) -> None:
        """Something follows: reads that may fail alone end here."""
        if self.alone is not None:
            self.check_reads()

    def check_reads(self) -> None:
        """What comes from here on happens only if what was read has not failed."""
        self.alone = None
        if not self.unchecked:
            return
        assert self.root is not None
        self.recorder.emit("prompt.read", (self.root(), *self.unchecked), {}, (), (),
                           next(iter(self.unchecked.values())))
        self.all_checked()

    def all_checked(self) -> None:
        """An operation waits for all that was read."""
        for value in self.unchecked:
            self.sound.note_read(value)
        self.unchecked, self.alone = {}, None


def _read_of(value: Any) -> Iterator[Value]:
    """The run-time values that a value is, or holds."""
    if isinstance(value, Sym):
        if value.recipe is None:
            yield from _read_of(value.operand)
    elif isinstance(value, Seq):
        if value.made and value.whole is not None:
            yield from _read_of(value.whole)
    elif isinstance(value, Frozen) or type(value) in (list, tuple):
        for v in value.elements if isinstance(value, Frozen) else value:
            yield from _read_of(v)
    elif isinstance(value, Value):
        yield value
