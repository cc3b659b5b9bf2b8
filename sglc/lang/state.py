"""What a user holds: the state of a prompt while a program builds it, and after a run.

`ProgramState` is the reading side, the same for eager and compiled runs.  How values come about
is up to the subclasses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any

from sglc.errors import UnknownVariable


def unknown_variable(name: Any, known: list[Any]) -> UnknownVariable:
    """The error for reading a variable that nothing produces."""
    listed = ", ".join(repr(k) for k in known) or "none"
    return UnknownVariable("SGLC003", f"variable {name!r} was never produced",
                           why=f"variables so far: {listed}",
                           fixes=(f"name a gen or select {name!r}", "check the spelling"))


class ProgramState(ABC):
    """The state of one program run: text, variables, messages.

    Reads wait for what they need; an error of the run is raised by the first read.
    """

    __slots__ = ()

    seed: int
    ret_value: Any

    # -- to be provided -----------------------------------------------------------------
    @abstractmethod
    def get_var(self, name: str | None, timeout: float | None = None) -> Any:
        """The value of a variable; UnknownVariable if nothing produces it."""

    @abstractmethod
    def get_meta_info(self, name: str | None, timeout: float | None = None) -> Any:
        """Counts, finish reason and log-probabilities of a gen or select; None if unknown."""

    @abstractmethod
    def text(self) -> str:
        """The whole text so far."""

    @abstractmethod
    def token_ids(self) -> list[int]:
        """The prompt's token ids so far."""

    @abstractmethod
    def messages(self) -> list[dict[str, str]]:
        """The closed chat messages, as `{"role": ..., "content": ...}`."""

    @abstractmethod
    def sync(self) -> None:
        """Wait until everything asked for is done; raises the run's error."""

    @abstractmethod
    def error(self) -> BaseException | None:
        """The run's error, None if it went well (waits for the end)."""

    @abstractmethod
    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """Pieces of text (of one variable, if named) as they are generated.

        Without `stream=True` the text comes as one piece at the end.
        """

    @abstractmethod
    def variable_names(self) -> list[Any]:
        """The variables that there are, in order."""

    # -- shared -------------------------------------------------------------------------
    def __getitem__(self, name: str | None) -> Any:
        return self.get_var(name)

    def __contains__(self, name: str | None) -> bool:
        return name in self.variable_names()

    async def text_async_iter(self, var_name: str | None = None,
                              return_meta_data: bool = False) -> AsyncIterator[Any]:
        """`text_iter` for `async for`; with `return_meta_data`, pairs of piece and meta data
        (None until the variable is complete)."""
        import asyncio

        loop = asyncio.get_running_loop()
        pieces = self.text_iter(var_name)
        end = object()
        while True:
            piece = await loop.run_in_executor(None, next, pieces, end)
            if piece is end:
                return
            if return_meta_data:
                yield piece, None if var_name is None else self._meta_now(var_name)
            else:
                yield piece

    def _meta_now(self, name: str) -> Any:
        try:
            return self.get_meta_info(name, timeout=0)
        except TimeoutError:
            return None

    def __repr__(self) -> str:
        return f"ProgramState({self.text()!r})"


class ContinuedState(ProgramState):
    """The state of a run that is over before the user goes on with it: in another state, which
    `_continue` gives."""

    __slots__ = ()

    @abstractmethod
    def _continue(self) -> Any:
        """The state that goes on where the run ended (waits for the end)."""

    def __iadd__(self, other: Any) -> Any:
        later = self._continue()
        later += other
        return self

    def __getattr__(self, name: str) -> Any:
        if name in ("fork", "copy", "user", "assistant", "system", "set_var", "var_scope",
                    "append"):
            return getattr(self._continue(), name)
        raise AttributeError(name)

    def __setitem__(self, name: str | None, value: Any) -> None:
        self._continue().set_var(name, value)
