"""Chat templates in jinja, taken apart: the text around one message at a time.

The template is rendered around probes, contents that nobody writes, and the text between them is
taken.  A template must then render a message the same way whatever follows it; one that does
not is refused (SGLC310), except for the opening of an assistant's message, where templates of
reasoning models differ on purpose between the last message and earlier ones.

This module knows no prompts; bounds on what a template may do are `sandbox.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from sglc.errors import Diagnostic, TokenError
from sglc.tokens.budget import Refused
from sglc.tokens.sandbox import BoundedTemplate
from sglc.tokens.templates import Roles, control_names
from sglc.tokens.text import Piece, SpecialPiece
from sglc.tokens.tokenizer import Tokenizer

_PROBE = re.compile(r"Zq(\d+)probe\1Qz")


@dataclass(frozen=True, slots=True)
class _Turn:
    """The text around one message; `variants` are other openings that history may show."""

    open: str
    close: str
    variants: tuple[str, ...]


class JinjaTemplate:
    """A jinja chat template with a tokenizer (a `templates.Template`).

    The opening of an assistant's message is what the template renders with
    `add_generation_prompt`, if it knows that; the openings it gives such a message in history
    must be equal, or begin with it, or be its beginning (then `remarks` gets one SGLC310).  A
    BOS that the tokenizer adds by itself is left out.

    variables: further values for the template, such as `enable_thinking`.
    """

    stop: tuple[str, ...] = ()

    def __init__(self, source: str, tokenizer: Tokenizer, *, name: str = "jinja",
                 variables: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.source = source
        self.remarks: list[Diagnostic] = []
        self._bos = tokenizer.bos_id
        self._names = control_names(tokenizer)
        self._variables = {
            "tools": None, "documents": None, "bos_token": getattr(tokenizer, "bos_token", ""),
            "eos_token": getattr(tokenizer, "eos_token", ""), **(variables or {})}
        self._turns: dict[tuple[Roles, str], _Turn] = {}
        # What was asked for last: how an assistant's message is opened in history is told by the
        # next user's too.
        self._last: tuple[tuple[Roles, bool], tuple[str, ...]] | None = None
        parts = "'type'" in source or '"type"' in source or ".type" in source
        self._in_parts: bool | None = None if parts else False  # whether contents are lists
        try:
            self._template = BoundedTemplate(source)
        except TemplateError as error:
            raise TokenError("SGLC311", "the chat template does not compile",
                             why=str(error)) from error

    def open(self, roles: Roles, role: str) -> tuple[Piece, ...]:
        pieces = self._names.split(self._turn(roles, role).open)
        if not roles and self._bos is not None and pieces and isinstance(
                pieces[0], SpecialPiece) and pieces[0].id == self._bos:
            del pieces[0]
        return tuple(pieces)

    def close(self, roles: Roles, role: str) -> tuple[Piece, ...]:
        return tuple(self._names.split(self._turn(roles, role).close))

    def around(self, messages: Sequence[Mapping[str, Any]]) -> list[tuple[Piece, ...]]:
        """The text around the contents of a whole chat, rendered at once up to where the
        assistant's answer begins: before the first content, between them, after the last.

        For chats whose messages have more than a role and a text, such as `tool_calls`; messages
        are as the template takes them, and contents that are None stay so.  Raises TokenError
        (SGLC310, SGLC311).
        """
        asked = self._whole(messages, generate=True)
        if asked == self._whole(messages, generate=False):  # it knows no `add_generation_prompt`
            asked = self._whole([*messages, {"role": "assistant", "content": ""}], False)[:-1]
        pieces = [self._names.split(gap) for gap in asked]
        first = pieces[0]
        if self._bos is not None and first and isinstance(first[0], SpecialPiece) and (
                first[0].id == self._bos):
            del first[0]
        return [tuple(p) for p in pieces]

    def _whole(self, messages: Sequence[Mapping[str, Any]], generate: bool) -> tuple[str, ...]:
        try:
            return self._rendered(messages, generate, bool(self._in_parts))
        except TokenError:
            if self._in_parts is False:
                raise
            return self._rendered(messages, generate, not self._in_parts)

    def _turn(self, roles: Roles, role: str) -> _Turn:
        """The text around message `role` after `roles`; computed for all its prefixes first."""
        every = (*roles, role)
        first = len(every)  # not known from there on
        while first and (every[:first - 1], every[first - 1]) not in self._turns:
            first -= 1
        for n in range(first, len(every)):
            self._turns[every[:n], every[n]] = self._new_turn(every[:n], every[n])
        return self._turns[roles, role]

    def _new_turn(self, roles: Roles, role: str) -> _Turn:
        gaps, close = self._layout((*roles, role))
        past = [self._turns[roles[:i], roles[i]] for i in range(len(roles))]
        opening = self._after_history(past, gaps)
        if role != "assistant" or not roles:
            return _Turn(opening, close, ())
        chosen = self._generation_prompt(past, roles) or opening
        variants = [o for o in (opening, self._earlier_opening(past, roles))
                    if o is not None and o != chosen]
        for other in variants:
            if not (chosen.startswith(other) or other.startswith(chosen)):
                raise _unstable(f"it opens an assistant's message with {chosen!r} in one place "
                                f"and with {other!r} in another")
            if not self.remarks:
                self.remarks.append(Diagnostic(
                    "SGLC310", "the chat template opens assistant messages in two ways",
                    why=f"{chosen!r} where one is to be generated, {other!r} where one is given",
                    effect="all of them are opened in the former way"))
        return _Turn(chosen, close, tuple(variants))

    def _after_history(self, past: list[_Turn], gaps: tuple[str, ...]) -> str:
        """What the last gap adds to history, checked to be as it was rendered turn by turn."""
        before = ""
        for i, turn in enumerate(past):
            if gaps[i] not in {before + text for text in (turn.open, *turn.variants)}:
                raise _unstable(f"message {i + 1} is opened by {gaps[i]!r} once others follow, "
                                f"and by {before + turn.open!r} before")
            before = turn.close
        if not gaps[-1].startswith(before):
            raise _unstable(f"message {len(past)} is followed by {gaps[-1]!r} once another "
                            f"follows, and by {before!r} before")
        return gaps[-1][len(before):]

    def _layout(self, roles: Roles) -> tuple[tuple[str, ...], str]:
        """(the text before each message, the text after the last).

        Templates that put a system message inside the next user's render it only together
        with that; then what follows the system message counts as the user's opening.
        """
        try:
            gaps = self._gaps(roles, generate=False)
        except TokenError:
            if roles[-1] != "system":
                raise
            with suppress(TokenError):
                return self._gaps((*roles, "user"), generate=False)[:-2], ""
            raise
        return gaps[:-1], gaps[-1]

    def _generation_prompt(self, past: list[_Turn], roles: Roles) -> str:
        """What `add_generation_prompt` adds after messages of these roles; "" if nothing."""
        try:
            gaps = self._gaps(roles, generate=True)
        except TokenError:
            return ""  # it cannot end there, but may still go on
        return self._after_history(past, gaps)

    def _earlier_opening(self, past: list[_Turn], roles: Roles) -> str | None:
        """How an assistant's message after `roles` is opened once a user's follows it."""
        with suppress(TokenError):
            gaps = self._gaps((*roles, "assistant", "user"), generate=False)
            return self._after_history(past, gaps[:-2])
        return None

    def _gaps(self, roles: Roles, generate: bool) -> tuple[str, ...]:
        """The rendered text before, between and after probes, one for each role."""
        if self._last is not None and self._last[0] == (roles, generate):
            return self._last[1]
        gaps = self._new_gaps(roles, generate)
        self._last = (roles, generate), gaps
        return gaps

    def _new_gaps(self, roles: Roles, generate: bool) -> tuple[str, ...]:
        messages = [{"role": role, "content": ""} for role in roles]
        if self._in_parts is not None:
            return self._rendered(messages, generate, self._in_parts)
        try:
            return self._rendered(messages, generate, False)
        except TokenError:
            # Templates of models with vision may take contents as lists of parts only.
            with suppress(TokenError):
                gaps = self._rendered(messages, generate, True)
                self._in_parts = True
                return gaps
            raise

    def _rendered(self, given: Sequence[Mapping[str, Any]], generate: bool, in_parts: bool
                  ) -> tuple[str, ...]:
        """The same for messages whose contents the probes stand for (None stays), with contents
        as text, or as lists of one part."""
        numbers, messages = [], []
        for i, message in enumerate(given):
            if message["content"] is not None:
                numbers.append(str(i))
                probe = f"Zq{i}probe{i}Qz"
                message = {**message, "content": [{"type": "text", "text": probe}] if in_parts
                           else probe}
            messages.append(message)
        try:
            text = self._template.render(
                {**self._variables, "messages": messages, "add_generation_prompt": generate})
        except Refused as error:
            raise TokenError("SGLC311", f"the chat template refuses the roles {_shape(given)}",
                             why=str(error)) from error
        except TemplateError as error:
            raise TokenError("SGLC311",
                             f"the chat template does not render the roles {_shape(given)}",
                             why=str(error)) from error
        parts = _PROBE.split(text)  # a gap, a number, a gap, and so on
        found = parts[1::2]
        if found != numbers:
            wrong = next((n for n in numbers if found.count(n) != 1), None)
            how = ("messages are rendered in another order" if wrong is None else
                   f"message {int(wrong) + 1} is rendered {found.count(wrong)} times")
            raise _unstable(f"with the roles {_shape(given)}, {how}")
        return tuple(parts[::2])


def _shape(messages: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join([message["role"] for message in messages])


def _unstable(why: str) -> TokenError:
    return TokenError(
        "SGLC310", "the chat template does not render turns in a stable way", why=why,
        effect="a program's messages cannot be opened and closed one by one with it",
        fixes=("give another template: `chat_template=` with a name or a ChatTemplate",))
