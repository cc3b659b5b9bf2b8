"""The state of a run whose body goes on, on a thread of its own, while its text is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from sglc.lang.eager import EagerState
from sglc.lang.state import ContinuedState


class StreamedState(ContinuedState):
    """What `run(stream=True)` gives back of the eager interpreter.

    The body holds the `EagerState` and reads what there is of it so far; here a read waits for
    the body, as what is read may not have been asked for yet.  Streams do not wait.  Appending
    goes on where the body ended.
    """

    __slots__ = ("_state", "_through")

    def __init__(self, state: EagerState, through: threading.Event) -> None:
        self._state = state
        self._through = through  # set when the body is

    def _ended(self, timeout: float | None = None) -> EagerState:
        if not self._through.wait(timeout):
            raise TimeoutError(f"the body is not through within {timeout} s")
        return self._state

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self._state.seed

    @property
    def ret_value(self) -> Any:  # type: ignore[override]
        """What the body returned (waits for it)."""
        return self._ended().ret_value

    def get_var(self, name: str | None, timeout: float | None = None) -> Any:
        return self._ended(timeout).get_var(name, timeout)

    def get_meta_info(self, name: str | None, timeout: float | None = None) -> Any:
        return self._ended(timeout).get_meta_info(name, timeout)

    def _meta_now(self, name: str) -> Any:
        return self._state._meta_now(name)

    def text(self) -> str:
        return self._ended().text()

    def token_ids(self) -> list[int]:
        return self._ended().token_ids()

    def messages(self) -> list[dict[str, str]]:
        return self._ended().messages()

    def sync(self) -> None:
        self._ended().sync()

    def error(self) -> BaseException | None:
        return self._ended().error()

    def variable_names(self) -> list[Any]:
        return self._ended().variable_names()

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        yield from self._state.text_iter(var_name)

    def cancel(self, error: BaseException) -> None:
        """Stop the run's model calls; what waits for them, and what follows, fails with `error`."""
        self._state._run.cancel(error)

    def _continue(self) -> EagerState:
        return self._ended()
