"""What a run of a program has come to so far, for those who wait for it: variables, what is known
about them, messages, the final prompt, and the error.

A variable has its final value once all the steps that may still bind it are done, and the host
chain with them.  How steps run is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from sglc.errors import EngineError
from sglc.runtime.plan_code import UNSET, PlanCode


class Failed:
    """Stands for the value of a call that failed; whatever needs it fails likewise."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class RunOutputs:
    """Written by one run, read from any thread; readers wait on `condition`.

    Steps tell their order in the program: they may run in another.  values: by variable.  metas:
    with the orders of their steps.  messages: likewise.  result: final prompt, return value;
    None while there is none.  error: the one that ended the body.
    """

    __slots__ = ("_chained", "_first", "_left", "_order", "condition", "ended", "error", "messages",
                 "metas", "result", "values")

    def __init__(self, condition: threading.Condition, code: PlanCode) -> None:
        self.condition = condition
        self.ended = False
        self.error: BaseException | None = None
        self.begin(code)

    # -- written by the run ------------------------------------------------------------------

    def begin(self, code: PlanCode) -> None:
        """Nothing has happened yet of this code."""
        self.result: tuple[Any, ...] | None = None
        self.values: dict[Any, Any] = {}
        self.metas: dict[Any, tuple[int, Any]] = {}
        self.messages: list[tuple[int, Any]] = []
        self._first: dict[Any, int] = {}  # by variable: the order of the first step that bound it
        self._order: dict[Any, int] = {}  # of the last one
        self._left = code.binds.copy()  # steps that may still bind, by variable
        self._chained = code.chained

    def bind(self, name: Any, value: Any, order: int) -> None:
        """A step has bound a variable."""
        with self.condition:
            if order >= self._order.get(name, -1):
                self.values[name], self._order[name] = value, order
            self._first[name] = min(order, self._first.get(name, order))
            self._left[name] -= 1
            self.condition.notify_all()

    def skip(self, arms: Iterable[Mapping[Any, int]]) -> None:
        """Arms that are not taken bind nothing.  By arm: how many of its steps bind a variable."""
        with self.condition:
            for binds in arms:
                for name, n in binds.items():
                    self._left[name] -= n
            self.condition.notify_all()

    def set_meta(self, name: Any, meta: Any, order: int) -> None:
        """What is known about a variable's value."""
        if order >= self.metas.get(name, (-1, None))[0]:
            self.metas[name] = order, meta

    def add_message(self, role: str, begin: Any, end: Any, order: int) -> None:
        """A message, whose text lies between two prompts."""
        if isinstance(end, Failed) or isinstance(begin, Failed):
            return
        content = end.text_since(begin).lstrip()
        self.messages.append((order, {"role": role, "content": content}))

    def fail(self, error: BaseException) -> None:
        """The body raises, unless it has before."""
        with self.condition:
            if self.error is None:
                self.error = error
            self.condition.notify_all()

    def end(self, result: tuple[Any, ...] | None, cancelled: BaseException | None) -> bool:
        """The run is over; False, and nothing is done, if it was before.  result: what stays of
        it where its body raised, else what there is.  cancelled: why it was ended, if it was,
        which is its error if anything of it is missing."""
        with self.condition:
            if self.ended:
                return False
            if cancelled is not None and (self.result is None or any(
                    n > 0 for n in self._left.values())):
                self.error = self.error or cancelled
            self.result = result
            if result is None and self.error is None:
                self.error = EngineError("SGLC503", "the plan stopped before its end")
            self.ended = True
            self.condition.notify_all()
        return True

    # -- reading -----------------------------------------------------------------------------

    def names(self) -> list[Any]:
        """The variables of an ended run, in the order in which its body came to them."""
        return sorted(self.values, key=self._first.__getitem__)

    def meta(self, name: Any) -> Any:
        """The meta of a variable, unless something else has been assigned to it since."""
        order, meta = self.metas.get(name, (-1, None))
        return meta if order >= self._order.get(name, -1) else None

    def failure(self) -> BaseException | None:
        """The error of an ended run: the body's, that of its prompt or value, or of a variable,
        for what is not the prompt's own was read by the body (a join reads what it gathers)."""
        if self.error is not None:
            return self.error
        for value in self.result or ():
            if isinstance(value, Failed):
                return value.error
        failed = [name for name, value in self.values.items() if isinstance(value, Failed)]
        if failed:
            return self.values[min(failed, key=lambda n: self._order.get(n, -1))].error
        return None

    def end_of_text(self) -> BaseException | None:
        """The error that the text of an ended run ends with: its prompt's own, if that failed."""
        if self.result is not None and isinstance(self.result[0], Failed):
            return self.result[0].error
        return self.failure()

    def prompt(self) -> Any:
        """The prompt of an ended run, of one whose body raised what it was then; None if there is
        none, or it failed."""
        prompt = None if self.result is None else self.result[0]
        return None if prompt is UNSET or isinstance(prompt, Failed) else prompt

    def wait_variable(self, name: Any, timeout: float | None = None) -> Any:
        """The final value of a variable; KeyError if the taken path binds none."""
        with self.condition:
            done = self.condition.wait_for(
                lambda: self.ended or (not self._chained and self._left.get(name, 0) <= 0),
                timeout)
            if not done:
                raise TimeoutError(f"no value of {name!r} within {timeout} s")
            value = self.values[name]
        if isinstance(value, Failed):
            raise value.error
        return value

    def wait_prompt(self) -> Any:
        """The final prompt, or what there was of it when the body raised."""
        with self.condition:
            self.condition.wait_for(lambda: self.ended)
        prompt = self.prompt()
        if prompt is None:
            error = self.end_of_text()
            assert error is not None
            raise error
        return prompt

    def value(self) -> Any:
        """What the body of an ended run returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        value = self.result[1] if self.result is not None and len(self.result) > 1 else None
        if isinstance(value, Failed):
            raise value.error
        return value

    def wait_body(self) -> None:
        """Until the user's Python is through; raises what it raised."""
        with self.condition:
            self.condition.wait_for(lambda: self.ended or self.error is not None)
        self.value()

    def wait(self) -> None:
        """Until the end; raises the run's error."""
        with self.condition:
            self.condition.wait_for(lambda: self.ended)
        error = self.failure()
        if error is not None:
            raise error
