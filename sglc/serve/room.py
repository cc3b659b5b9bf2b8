"""How much requests may hold at a time, all together."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from sglc.serve.problems import Problem


class Room:
    """A number of things (bytes, say) that requests share; from any thread.

    what: their name in messages.  status, code: of the answer to a request for more than there
    are at all.
    """

    def __init__(self, most: int, what: str, status: int, code: str) -> None:
        self.most = most
        self.taken = 0
        self._what = what
        self._never = (status, code)
        self._lock = threading.Lock()

    def hold(self, n: int, until: ExitStack) -> None:
        """Take `n`, and give them back when `until` is closed.

        Raises Problem if there never are so many, Problem 429 if there are not now.
        """
        if n > self.most:
            status, code = self._never
            raise Problem(status, f"the request is too large for this server: {n} ({self._what}), "
                          f"where {self.most} is the most", code=code)
        with self._lock:
            if self.taken + n > self.most:
                raise Problem(429, f"there is no room for more now ({self._what})",
                              code="queue_full", headers={"Retry-After": "1"})
            self.taken += n
        until.callback(self._give_back, n)

    def _give_back(self, n: int) -> None:
        with self._lock:
            self.taken -= n
