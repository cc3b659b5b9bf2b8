"""The text of a running plan instance, in order, as it comes.

What the program adds behind a host call or a read comes when that has not raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sglc.runtime.plan_code import UNSET, PlanCode

ROOT = object()  # the name of the whole text


class TextStream:
    """Publishes the text of an instance's result, and of its variables.

    push(name, piece): called with `ROOT` for the whole text.  close(error): called at the end.
    """

    def __init__(self, code: PlanCode, push: Callable[[Any, str], None],
                 close: Callable[[BaseException | None], None]) -> None:
        self.push = push
        self.finish = close
        self.lock = threading.Lock()
        self.total = 0  # characters of the whole text that are out
        self.enter(code)

    def enter(self, code: PlanCode) -> None:
        """Follow this code from the top; what is out already is not published again."""
        self.code = code
        self.todo: list[Any] = list(code.chain)
        self.at = 0  # characters passed in this code
        self.happened: set[int] = set()  # sources
        self.held: list[tuple[int | None, Any, str]] = []  # of variables, with what they wait for
        self.keys: dict[int, Any] = {}  # of gens whose key is known at run time, by their slot
        self.names: dict[Any, list[Any]] = {}  # of the variables of these, by key
        self.sent: dict[Any, int] = {}  # characters of a gen that are passed
        self.buffers: dict[Any, list[str]] = {}

    def resolve(self, slot: int, key: Any) -> None:
        """Learn the key of the gen that gives this slot's prompt."""
        with self.lock:
            self.keys[slot] = key
            self.names[key] = self.code.stream_names.get(slot, [])

    def listener(self, key: Any, instance: Any) -> Callable[[str], None]:
        """What the gen of this key calls with its text."""
        def on_text(piece: str) -> None:
            with self.lock:
                for name, wait in self.names.get(key) or self.code.stream_names.get(key, ()):
                    self.held.append((wait, name, piece))
                self.buffers.setdefault(key, []).append(piece)
            self.advance(instance.slots)

        return on_text

    def advance(self, env: list[Any]) -> None:
        """Publish what is known, in order."""
        with self.lock:
            if self.held:
                ready = [wait is None or wait in self.happened for wait, _, _ in self.held]
                for (_, name, piece), now in zip(self.held, ready, strict=True):
                    if now:
                        self.push(name, piece)
                self.held = [h for h, now in zip(self.held, ready, strict=True) if not now]
            while self.todo:
                entry = self.todo[0]
                if not self.happened.issuperset(entry[-1]):
                    return
                if entry[0] == "branch":
                    taken = next((chain for slot, chain in entry[1] if env[slot] is True), None)
                    if taken is None:
                        return
                    self.todo[:1] = taken
                    continue
                slot, previous, key, _ = entry
                key = self.keys.get(slot, key)
                buffered = self.buffers.pop(key, None) if key is not None else None
                if buffered:
                    text = "".join(buffered)
                    self.sent[key] = self.sent.get(key, 0) + len(text)
                    self._out(text)
                now, before = env[slot], env[previous]
                if now is UNSET or before is UNSET or not hasattr(now, "text_since"):
                    return
                self._out(now.text_since(before)[self.sent.get(key, 0):])
                self.todo.pop(0)

    def _out(self, text: str) -> None:
        new = text[max(0, self.total - self.at):]
        self.at += len(text)
        if new:
            self.total += len(new)
            self.push(ROOT, new)
