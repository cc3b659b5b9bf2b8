"""A conversation as the turns of APIs that keep the system text apart from the messages."""

from __future__ import annotations

from dataclasses import dataclass

from sglc.errors import CapabilityError
from sglc.tokens.text_prompt import Conversation


@dataclass(frozen=True, slots=True)
class Turns:
    """system: the text of the system messages at the beginning.  messages: (role, text), the last
    one an assistant message only if it is begun."""

    system: str
    messages: tuple[tuple[str, str], ...]


def turns(conversation: Conversation, name: str) -> Turns:
    """The turns of a conversation; text outside of messages is one user message.

    Raises CapabilityError SGLC012 for a system message behind others.
    """
    messages = list(conversation.messages) or [("user", conversation.text)]
    system: list[str] = []
    while messages and messages[0][0] == "system":
        system.append(messages.pop(0)[1])
    if any(role == "system" for role, _ in messages):
        raise CapabilityError("SGLC012", f"{name} takes system messages at the beginning only",
                              fixes=("put it first", "make it a user message"))
    if messages and messages[-1] == ("assistant", ""):
        messages.pop()
    if not messages:
        raise CapabilityError("SGLC012", f"{name} needs a user message before the first gen",
                              fixes=("write s += user(...) before assistant(gen(...))",))
    return Turns("\n\n".join(system), tuple(messages))


class Begun:
    """Takes the blanks off a text that repeats the end of a message that was begun.

    An API that refuses a begun message with blanks at its end is sent it without them; the answer
    may then begin with them.
    """

    def __init__(self, blanks: str) -> None:
        self._left = blanks

    def piece(self, text: str) -> str:
        """The next piece of the answer, without the repeated blanks."""
        n = 0
        while n < len(text) and self._left.startswith(text[n]):
            self._left = self._left[1:]
            n += 1
        if n < len(text):
            self._left = ""
        return text[n:]
