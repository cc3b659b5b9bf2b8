"""Prompts for models that take text or chat messages: the same value as `prompt.Prompt`, no ids.

Instead of control tokens there are marks, where chat messages open and close.  A prompt may carry
text that the model has written beyond it already (`ahead`); what that is good for is up to who
put it there.

This module knows no tokenizer, API or program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from sglc.errors import CapabilityError
from sglc.tokens.spans import spans_since


@dataclass(frozen=True, slots=True)
class MessageMark:
    """Where a chat message opens or closes; a border, without text."""

    role: str
    opens: bool

    @property
    def id(self) -> MessageMark:
        """A template's piece gives a prompt its id: here the mark itself."""
        return self


@dataclass(frozen=True, slots=True)
class ControlName:
    """A control token that is sent by its name; a border, without text."""

    name: str


@dataclass(frozen=True, slots=True)
class Given:
    """Text of the program."""

    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """Text that a model wrote."""

    text: str


@dataclass(frozen=True, slots=True)
class FileOfImage:
    """An image that is sent as it is."""

    file: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """An image in a prompt.  text: what texts show of it."""

    image: FileOfImage
    text: str


Span = Given | Written | Shown | MessageMark | ControlName


class Ahead(Protocol):
    """Text that a model wrote beyond a prompt."""

    def after(self, text: str) -> Ahead | None:
        """What is left when the prompt grows by `text`; None if that is not how it began."""
        ...


@dataclass(frozen=True, slots=True)
class Conversation:
    """What an API is sent of a prompt: text outside of messages, and messages as (role, text).

    open: the last message is still being written.  images: those in it, in order; the text shows
    them as their marks.  parts: what each message consists of, where there are images.  controls:
    the names in the text that are control tokens, in order.
    """

    text: str
    messages: tuple[tuple[str, str], ...]
    open: bool
    images: tuple[Shown, ...] = ()
    parts: tuple[tuple[str | Shown, ...], ...] = ()
    controls: tuple[str, ...] = ()


class TextPrompt:
    """An immutable prompt.  Every method returns a new value that shares its parts."""

    __slots__ = ("_content", "ahead", "parent", "span")

    def __init__(self, parent: TextPrompt | None = None, span: Span | None = None,
                 ahead: Ahead | None = None) -> None:
        self.parent = parent
        self.span = span
        self.ahead = ahead
        self._content: Conversation | None = None

    def append(self, text: str) -> TextPrompt:
        """This prompt with `text` added."""
        if not text:
            return self
        return TextPrompt(self, Given(text), self.ahead and self.ahead.after(text))

    def written(self, text: str, ahead: Ahead | None = None) -> TextPrompt:
        """This prompt with text that a model wrote, and what it wrote beyond that."""
        return TextPrompt(self, Written(text), ahead)

    def special(self, mark: Any) -> TextPrompt:
        """This prompt with a message opened or closed, or a control token that is sent by its
        name; SGLC012 for others."""
        if not isinstance(mark, (MessageMark, ControlName)):
            raise no_control_tokens()
        return TextPrompt(self, mark)

    def image(self, image: FileOfImage, text: str = "<image>") -> TextPrompt:
        """This prompt with an image, which texts show as `text`."""
        return TextPrompt(self, Shown(image, text))

    def append_span(self, span: Span) -> TextPrompt:
        if isinstance(span, Given):
            return self.append(span.text)
        if isinstance(span, Shown):
            return self.image(span.image, span.text)
        return self.written(span.text) if isinstance(span, Written) else self.special(span)

    def append_since(self, child: TextPrompt, base: TextPrompt) -> TextPrompt:
        """This prompt with the spans that `child` added after `base`."""
        out = self
        for span in child.spans(base):
            out = out.append_span(span)
        return out

    def spans(self, base: TextPrompt | None = None) -> list[Span]:
        """The spans in order, from the start or from `base`, which this prompt must extend."""
        return spans_since(self, base)

    def content(self) -> Conversation:
        """All that a model is shown of this prompt; equal for prompts that look alike."""
        if self._content is None:
            outside: list[str] = []
            messages: list[tuple[str, list[str | Shown]]] = []
            images: list[Shown] = []
            controls: list[str] = []
            within = False
            for span in self.spans():
                if isinstance(span, MessageMark):
                    within = span.opens
                    if within:
                        messages.append((span.role, []))
                elif isinstance(span, ControlName):
                    outside.append(span.name)
                    controls.append(span.name)
                elif within:
                    messages[-1][1].append(span if isinstance(span, Shown) else span.text)
                else:
                    outside.append(span.text)
                if isinstance(span, Shown):
                    images.append(span)
            self._content = Conversation(
                "".join(outside), tuple([
                    (role, "".join([p if isinstance(p, str) else p.text for p in parts]))
                    for role, parts in messages]), within, tuple(images),
                tuple([tuple(parts) for _, parts in messages]) if images else (),
                tuple(controls))
        return self._content

    def text(self) -> str:
        """The whole text; messages give theirs one after the other, control tokens none."""
        return self.text_since(None)

    def text_since(self, base: TextPrompt | None) -> str:
        """The text added after `base`."""
        return "".join([s.text for s in self.spans(base)
                        if not isinstance(s, (MessageMark, ControlName))])

    def token_ids(self) -> NoReturn:
        """CapabilityError SGLC012: there are none."""
        raise CapabilityError("SGLC012", "a prompt of a remote API has no token ids",
                            fixes=("read text() or messages()",))

    def __repr__(self) -> str:
        return f"TextPrompt({self.text()!r})"


class MessageTemplate:
    """Stands for a chat template where the API is sent messages: its pieces are marks."""

    name = "messages"
    stop: tuple[str, ...] = ()
    image_token = "<image>"

    def open(self, roles: tuple[str, ...], role: str) -> tuple[MessageMark, ...]:
        return (MessageMark(role, True),)

    def close(self, roles: tuple[str, ...], role: str) -> tuple[MessageMark, ...]:
        return (MessageMark(role, False),)


def no_images() -> CapabilityError:
    return CapabilityError("SGLC012", "images are not sent to this API",
                           why="prompts are sent to it as text",
                           fixes=("run the program on an Engine or a server with a LLaVA or Yi-VL "
                                  "model", "use sglc.OpenAI with a chat model that sees images"))


def no_control_tokens() -> CapabilityError:
    return CapabilityError("SGLC012", "a remote API takes no control tokens",
                           why="prompts are sent as text or as chat messages",
                           fixes=("write roles with system(), user() and assistant()",))
