"""The calls of one run, by their keys: what they were asked, what is under way, what they gave.

What calls gave outlives the plan that made them: one that replaces it finds its calls done here.
A call that was made ahead of a guess may have to be asked anew; what the first one gives is then
of no use.  Steps and the values of a plan are not known here.
"""

from __future__ import annotations

import threading
from typing import Any

from sglc.runtime.calls import Call
from sglc.runtime.request import Request


class CallLog:
    """given: what calls gave.  flying: calls that are under way, None while one is being made.

    Keys begin with their kind: "call", "host", "event" or "prefill".  lock: the run's, which
    guards `flying`.
    """

    __slots__ = ("_asked", "_count", "_lock", "_numbers", "flying", "given")

    def __init__(self, lock: threading.Lock) -> None:
        self.given: dict[Any, Any] = {}
        self.flying: dict[Any, Call | None] = {}
        self._lock = lock
        self._asked: dict[Any, Any] = {}
        self._numbers: dict[Any, int] = {}  # the model calls made last
        self._count = 0

    # -- making calls ------------------------------------------------------------------------

    def ask(self, key: Any, asked: Any) -> Call | None:
        """Note what a call is asked.  Where it was asked something else before, that is
        forgotten; returns the call that is to be cancelled, if any."""
        stale = None
        if self._asked.get(key, asked) != asked:
            self.given.pop(key, None)
            stale = self.flying.pop(key, None)
        self._asked[key] = asked
        return stale

    def begin(self, key: Any) -> bool:
        """Note that a call is being made; False if it is under way."""
        if key in self.flying:
            return False
        self.flying[key] = None
        return True

    def number(self, key: Any) -> int:
        """The number of a model call that is made now: above 0, and another when it is asked
        anew."""
        self._count += 1
        self._numbers[key] = self._count
        return self._count

    def made(self, key: Any, call: Call) -> None:
        """A call was made, and can be cancelled, unless it has come back already."""
        with self._lock:
            if key in self.flying:
                self.flying[key] = call

    # -- outcomes ----------------------------------------------------------------------------

    def landed(self, key: Any, number: int) -> bool:
        """A call has come back; False, and nothing is done, if it was asked anew since.
        `number`: 0 for all but model calls."""
        if number != self._numbers.get(key, 0):
            return False
        with self._lock:
            del self.flying[key]
        return True

    def keep(self, key: Any, value: Any) -> None:
        """Note what a call gave, if it can be asked for again."""
        if key[0] != "event" and key[0] != "prefill":
            self.given[key] = value

    # -- what is under way -------------------------------------------------------------------

    def under_way(self) -> list[Call]:
        """The calls that can be cancelled."""
        with self._lock:
            return [call for call in self.flying.values() if call is not None]

    def only_prefills(self) -> list[Request]:
        """What is under way, if that is nothing but KV that nobody will read any more.  With the
        lock held."""
        if any(key[0] != "prefill" for key in self.flying):
            return []
        return [r for call in self.flying.values() if call is not None for r in call.requests]

    def drop_unmade(self) -> None:
        """Forget the model calls that were being made when something failed: they will not come
        back."""
        with self._lock:
            for key in [k for k, c in self.flying.items() if c is None and k[0] == "call"]:
                del self.flying[key]
