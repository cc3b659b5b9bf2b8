"""Messages as a prompt: roles through the chat template, contents as plain characters and images.

Contents never become control tokens, whatever they look like.
"""

from __future__ import annotations

import json
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from sglc.errors import SglcError
from sglc.serve.problems import Problem
from sglc.serve.requests import ImagePart, Message
from sglc.tokens.images import PlacedImage, image_text
from sglc.tokens.prompt import Prompt
from sglc.tokens.templates import piece_text
from sglc.tokens.text import SpecialPiece
from sglc.tokens.tokenizer import Tokenizer

_MAX_ROLES = 20_000  # roles in all distinct sequences that a template is asked for


class ChatPrompts:
    """Builds the prompts of chats; from any thread."""

    def __init__(self, tokenizer: Tokenizer, template: Any) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self._asked: set[tuple[str, ...]] = set()
        self._roles = 0
        self._lock = threading.Lock()

    @cached_property
    def role_texts(self) -> dict[str, Any] | None:
        """The template's texts, for clients that send prompts as text; None if it renders roles
        in another way than one text before and one after."""
        t = self.template
        try:
            pieces = {
                "system": (t.open((), "system"), t.close((), "system")),
                "user": (t.open(("system",), "user"), t.close(("system",), "user")),
                "assistant": (t.open(("system", "user"), "assistant"),
                              t.close(("system", "user"), "assistant"))}
            first = t.open((), "user")
        except SglcError:
            return None
        around = {role: [piece_text(p) for p in both] for role, both in pieces.items()}
        begin, end = around["system"]
        default, user, alone = None, around["user"][0], piece_text(first)
        if alone != user:
            block = alone.removesuffix(user)
            if block == alone or not (block.startswith(begin) and block.endswith(end)):
                return None
            default = block[len(begin):len(block) - len(end)]
        control = {piece.name for both in pieces.values() for found in (*both, first)
                   for piece in found if isinstance(piece, SpecialPiece)}
        return {"roles": around, "default_system": default, "stop": list(t.stop),
                "image_token": "".join(image_text(t)), "control_tokens": sorted(control)}

    def ids(self, messages: Sequence[Message],
            tools: Sequence[dict[str, Any]] | None = None) -> array[int]:
        """The ids of `prompt`."""
        return self.prompt(messages, tools).token_ids()

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None,
               images: Sequence[PlacedImage] = ()) -> Prompt:
        """The prompt up to where the assistant's answer begins.  Raises Problem 400.

        images: those of the messages, in order (see `image_urls`).
        """
        for message in messages:
            if message.content is None and not message.tool_calls:
                raise Problem(400, "a message has no content", param="messages",
                              code="invalid_value")
            if message.tool_calls and message.role != "assistant":
                raise Problem(400, "only an assistant's message has tool_calls",
                              param="messages", code="invalid_value")
        given = [list(tools or ()), [_beside(_shown(m)) for m in messages]]
        prompt = self._built(messages, tools, images, lambda value: value)
        if any(map(self._may_join, _texts(given))):
            apart = self._built(messages, tools, images, self._apart)
            if self._controls(prompt) != self._controls(apart):
                raise Problem(400, "texts of tools join to the name of a control token",
                              param="tools" if tools else "messages", code="invalid_value")
        return prompt

    def _built(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None,
               images: Sequence[PlacedImage], spell: Callable[[Any], Any]) -> Prompt:
        """The prompt, with what the template renders itself as `spell` gives it."""
        pictures = iter(images)
        template = self._current(tuple(m.role for m in messages)) if not tools else (
            self._with_tools(tools, spell))
        prompt = Prompt.empty(self.tokenizer)
        roles: tuple[str, ...] = ()
        try:
            if any(m.role == "tool" or m.tool_calls for m in messages):
                return self._with_calls(prompt, template, messages, pictures, spell)
            for message in messages:
                role = "system" if message.role == "developer" else message.role
                prompt = _add(prompt, template.open(roles, role))
                prompt = self._with_content(prompt, message, pictures)
                prompt = _add(prompt, template.close(roles, role))
                roles = (*roles, role)
            prompt = _add(prompt, template.open(roles, "assistant"))
        except SglcError as error:
            d = error.diagnostic
            raise Problem(400, f"{d.code} {d.what}" + (f" ({d.why})" if d.why else ""),
                          param="messages", code="template_error") from None
        return prompt

    def _with_calls(self, prompt: Prompt, template: Any, messages: Sequence[Message],
                    images: Iterator[PlacedImage], spell: Callable[[Any], Any]) -> Prompt:
        """The prompt of a chat in which tools were called; by the template as a whole, as it may
        show several results as one message."""
        around = getattr(template, "around", None)
        calls = any(m.tool_calls for m in messages)
        if around is None or (calls and "tool_calls" not in template.source):
            raise Problem(400, "the model's chat template has no place for calls of tools",
                          param="messages", code="unsupported")
        shown = [_shown(m) for m in messages]
        self._check_names([_beside(m) for m in shown], "tool_calls", "messages")
        gaps = around([{**m, **spell(_beside(m))} for m in shown])
        prompt = _add(prompt, gaps[0])
        written = [m for m, s in zip(messages, shown, strict=True) if s["content"] is not None]
        for message, gap in zip(written, gaps[1:], strict=True):
            prompt = _add(self._with_content(prompt, message, images), gap)
        return prompt

    def _check_names(self, value: Any, where: str, param: str) -> None:
        """What a template renders itself must not hold control tokens."""
        if any(name in text for text in _texts(value) for name in self._names):
            raise Problem(400, f"a text in {where} holds the name of a control token",
                          param=param, code="invalid_value")

    @cached_property
    def _names(self) -> frozenset[str]:
        """The names of control tokens."""
        return frozenset((*self.tokenizer.special, *getattr(self.tokenizer, "added", {})))

    @cached_property
    def _halves(self) -> tuple[frozenset[str], frozenset[str]]:
        """What such names begin and end with."""
        cuts = [(n[:i], n[i:]) for n in self._names for i in range(1, len(n))]
        return frozenset([a for a, _ in cuts]), frozenset([b for _, b in cuts])

    def _may_join(self, text: str) -> bool:
        """Whether a text and what a template puts beside it may be the name of a control token."""
        begins, ends = self._halves
        inner, longest = text.strip(), max(map(len, self._names), default=0)
        head, tail = inner[:longest], inner[-longest:]
        return any(tail[i:] in begins for i, c in enumerate(tail) if c in begins) or any(
            head[:i + 1] in ends for i, c in enumerate(head) if c in ends)

    def _apart(self, value: Any) -> Any:
        """A value whose texts join with nothing."""
        if isinstance(value, str):
            return f"x{value}x" if self._may_join(value) else value
        if isinstance(value, dict):
            return {self._apart(k): self._apart(v) for k, v in value.items()}
        return [self._apart(v) for v in value] if isinstance(value, list) else value

    def _controls(self, prompt: Prompt) -> list[int]:
        """The control tokens of a prompt."""
        ids = {*self.tokenizer.special_ids, *getattr(self.tokenizer, "added", {}).values()}
        return [i for i in prompt.token_ids() if i in ids]

    def _with_content(self, prompt: Prompt, message: Message,
                      images: Iterator[PlacedImage]) -> Prompt:
        """The prompt with a message's texts and images, in order."""
        content = message.content
        if content is None or isinstance(content, str):
            return prompt.append(content or "")
        before, mark, after = image_text(self.template)
        for part in content:
            if isinstance(part, ImagePart):
                prompt = prompt.append(before).image(next(images), mark).append(after)
            else:
                prompt = prompt.append(part.text)
        return prompt

    def _current(self, roles: tuple[str, ...]) -> Any:
        """The template; a new one when it remembers the layouts of too many chats."""
        with self._lock:
            if roles not in self._asked:
                self._asked.add(roles)
                self._roles += len(roles)
                if self._roles > _MAX_ROLES:
                    self._asked, self._roles = {roles}, len(roles)
                    source = getattr(self.template, "source", None)
                    if source is not None:
                        from sglc.tokens.jinja import JinjaTemplate

                        self.template = JinjaTemplate(source, self.tokenizer,
                                                      name=self.template.name)
            return self.template

    def _with_tools(self, tools: Sequence[dict[str, Any]], spell: Callable[[Any], Any]) -> Any:
        source = getattr(self.template, "source", None)
        if source is None or "tools" not in source:
            raise Problem(400, "the model's chat template has no place for tools",
                          param="tools", code="unsupported")
        self._check_names(list(tools), "tools", "tools")
        from sglc.tokens.jinja import JinjaTemplate

        return JinjaTemplate(source, self.tokenizer, variables={"tools": spell(list(tools))})


def texts_in(messages: Sequence[Message]) -> Iterator[str]:
    """The texts of messages' contents."""
    for message in messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from [p.text for p in message.content or () if not isinstance(p, ImagePart)]


def image_urls(messages: Sequence[Message]) -> list[str]:
    """The URLs of the images in messages, in order.  Raises Problem 400 for what is no URL."""
    out = []
    for message in messages:
        for part in message.content if isinstance(message.content, list) else ():
            if isinstance(part, ImagePart):
                given = part.image_url
                url = given.get("url") if isinstance(given, dict) else given
                if not isinstance(url, str) or ":" not in url[:8]:
                    raise Problem(400, "an image_url must be a data: URL with base64",
                                  param="messages", code="invalid_image")
                out.append(url)
    return out


def _shown(message: Message) -> dict[str, Any]:
    """A message as templates take it: the arguments of calls as objects, where they are JSON."""
    out: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        # A call's own text is often empty, and templates ask whether there is any.
        "content": (message.content or None) if message.tool_calls else message.content}
    for name in ("name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            out[name] = value
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {
                "name": c.function.name, "arguments": _arguments(c.function.arguments)}}
            for c in message.tool_calls]
    return out


def _beside(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What a message has beside its role and content."""
    return {k: v for k, v in shown.items() if k not in ("role", "content")}


def _arguments(given: str | dict[str, Any]) -> Any:
    if isinstance(given, str):
        try:
            return json.loads(given)
        except (ValueError, RecursionError):
            return given  # as the model wrote it
    return given


def _add(prompt: Prompt, pieces: Sequence[Any]) -> Prompt:
    for piece in pieces:
        prompt = prompt.special(piece.id) if isinstance(piece, SpecialPiece) else (
            prompt.append(piece))
    return prompt


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for k, v in value.items() for t in (k, *_texts(v))]
    if isinstance(value, list):
        return [t for v in value for t in _texts(v)]
    return []
