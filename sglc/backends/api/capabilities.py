"""What an API can be asked for, and the error that names what it cannot.

This module knows options of gens and conversations, not how they are sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from sglc.config import RunOptions
from sglc.errors import CapabilityError
from sglc.tokens.text_prompt import Conversation

# Options that no API is needed for: they are seen to here, or say nothing about the text.
_OURS = frozenset(("max_tokens", "stop", "stop_regex", "n", "temperature", "dtype",
                   "num_api_spec_tokens", "return_text_in_logprobs", "skip_special_tokens",
                   "spaces_between_special_tokens"))
_CONSTRAINTS = {
    "regex": "ask for the format in the prompt, or run a local model (sglc.Engine)",
    "ebnf": "ask for the format in the prompt, or run a local model (sglc.Engine)",
    "json_schema": "ask for JSON in the prompt, or run a local model (sglc.Engine)",
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an API can do.

    name: in messages.  options: names of `RunOptions` that it takes.  max_stops: how many stop
    strings it takes; blank_stops: whether they may be blank (others are cut off here).  messages:
    it takes chat messages (else text).  text_as_user: text outside of messages is sent as one
    user message.  continues: it goes on with an assistant message that is begun.  images: it takes
    images.  max_temperature: the largest it takes.
    """

    name: str
    options: frozenset[str] = field(default_factory=frozenset)
    max_stops: int = 4
    blank_stops: bool = True
    messages: bool = True
    text_as_user: bool = False
    continues: bool = False
    images: bool = False
    max_temperature: float = 2.0

    def check(self, options: RunOptions) -> None:
        """Raise CapabilityError SGLC012 for the first option the API does not have."""
        for name in _FIELDS:
            value = getattr(options, name)
            if name in _OURS or name in self.options or value == getattr(_DEFAULT, name):
                continue
            hint = _CONSTRAINTS.get(name, f"leave out {name}=")
            said = f"{name} (of dtype=)" if name == "regex" and _is_dtype(options) else name
            raise CapabilityError("SGLC012", f"{self.name} has no {said}",
                                  why=f"{name}={_short(value)} cannot be sent to it, and would "
                                      "not hold", fixes=(hint,))
        if options.temperature > self.max_temperature:
            raise CapabilityError(
                "SGLC012", f"{self.name} takes a temperature of at most "
                f"{self.max_temperature:g}, not {options.temperature:g}",
                fixes=(f"give a temperature of at most {self.max_temperature:g}",))

    def stops(self, options: RunOptions) -> tuple[str, ...]:
        """The stop strings that can be sent; none if some text must be seen to be cut here."""
        fit = tuple(s for s in options.stop if self.blank_stops or s.strip())
        return fit[: self.max_stops]

    def check_place(self, conversation: Conversation, expected: bool) -> None:
        """Raise CapabilityError SGLC012 for a gen where the API cannot write.

        expected: the whole message is asked for, and what there is of it is to be found in it.
        """
        if not self.messages:
            return
        if not conversation.messages and self.text_as_user:
            return
        if conversation.text.strip() or not conversation.open:
            raise CapabilityError(
                "SGLC012", f"{self.name} generates in assistant messages only",
                why="there is text outside of messages" if conversation.text.strip()
                else "no message is open at this gen",
                fixes=("write s += user(...) and s += assistant(gen(...))",
                       'use a completion model: api_type="completion"'))
        role, text = conversation.messages[-1]
        if role != "assistant":
            raise CapabilityError("SGLC012", f"{self.name} writes no {role} messages",
                                  fixes=("put the gen into assistant(...)",))
        if text and not (self.continues or expected):
            raise CapabilityError(
                "SGLC012", f"{self.name} cannot continue a message that is begun",
                why=f"the gen comes after {_short(text)} in the same assistant message",
                fixes=("let the gen be the first thing in assistant(...)",
                       "give the program num_api_spec_tokens=, and ask for this form of answer",
                       "if the server does continue the last message: continues=True"))


_DEFAULT = RunOptions()
_FIELDS = tuple(f.name for f in fields(RunOptions))


def _is_dtype(options: RunOptions) -> bool:
    from sglc.config import DTYPES

    return any(options.regex == regex for regex, _ in DTYPES.values())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
