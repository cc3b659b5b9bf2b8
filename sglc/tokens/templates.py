"""Chat templates as pieces: what goes before and after the content of each message.

A program opens and closes roles one by one, so a template is asked for the text around one
message, given the roles before it.  Contents never pass through a template, and what was said
is never rewritten.  Control tokens come out as ids, everything else as plain text.

This module knows jinja templates (through `sandbox.py`) and plain ones (prefix and suffix per
role); it knows no prompts and no models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from sglc.errors import TokenError
from sglc.tokens.text import Piece, SpecialPiece, SpecialSplitter
from sglc.tokens.tokenizer import Tokenizer

Roles = tuple[str, ...]


class Template(Protocol):
    """The text around messages.

    `name` is for messages to users; `stop` are strings that end an assistant's text, beyond the
    tokenizer's own end tokens.
    """

    name: str
    stop: tuple[str, ...]

    def open(self, roles: Roles, role: str) -> tuple[Piece, ...]:
        """What goes before the content of the next message, of role `role`; `roles` are those
        of all messages before it, each closed.  SGLC310 or SGLC311 if the template cannot."""
        ...

    def close(self, roles: Roles, role: str) -> tuple[Piece, ...]:
        """What follows the content of that message (the arguments are those of its `open`)."""
        ...


class ChatTemplateStyle(Enum):
    """How the prefixes of a plain template apply."""

    PLAIN = "plain"
    LLAMA2 = "llama2"  # a system message opens inside the first user message


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A plain template: per role a prefix and a suffix (unknown roles have none).

    `default_system_prompt` is put first if a conversation opens with another role.  The fields
    are those of SGLang's class of this name.
    """

    name: str
    default_system_prompt: str | None
    role_prefix_and_suffix: Mapping[str, tuple[str, str]]
    stop_str: tuple[str, ...] = ()
    image_token: str = "<image>"
    style: ChatTemplateStyle = ChatTemplateStyle.PLAIN

    def bind(self, tokenizer: Tokenizer) -> PlainTemplate:
        return PlainTemplate(self, tokenizer)


def control_names(tokenizer: Tokenizer) -> SpecialSplitter:
    """Splits template text at the tokenizer's control tokens and other added tokens."""
    return SpecialSplitter({**getattr(tokenizer, "added", {}), **tokenizer.special})


class PlainTemplate:
    """A `ChatTemplate` with a tokenizer, whose control tokens it finds in prefixes and suffixes."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self.template = template
        self.name = template.name
        self.stop = tuple(template.stop_str)
        self._names = control_names(tokenizer)

    def open(self, roles: Roles, role: str) -> tuple[Piece, ...]:
        default = self.template.default_system_prompt
        text = ""
        if default is not None and (roles or (role,))[0] != "system":
            if not roles:
                text = self._prefix((), "system") + default + self._suffix("system")
            roles = ("system", *roles)
        return tuple(self._names.split(text + self._prefix(roles, role)))

    def close(self, roles: Roles, role: str) -> tuple[Piece, ...]:
        return tuple(self._names.split(self._suffix(role)))

    def _prefix(self, roles: Roles, role: str) -> str:
        table = self.template.role_prefix_and_suffix
        prefix = table.get(role, ("", ""))[0]
        if self.template.style is ChatTemplateStyle.LLAMA2:
            if role == "system" and not roles:
                return table.get("user", ("", ""))[0] + prefix
            if role == "user" and roles == ("system",):
                return ""
        return prefix

    def _suffix(self, role: str) -> str:
        return self.template.role_prefix_and_suffix.get(role, ("", ""))[1]


_CHATML = {role: (f"<|im_start|>{role}\n", "<|im_end|>\n")
           for role in ("system", "user", "assistant")}

BUILT_IN: tuple[ChatTemplate, ...] = (
    ChatTemplate("default", None, {
        "system": ("SYSTEM:", "\n"), "user": ("USER:", "\n"), "assistant": ("ASSISTANT:", "\n")}),
    ChatTemplate("claude", None, {
        "system": ("", ""), "user": ("\n\nHuman: ", ""), "assistant": ("\n\nAssistant:", "")}),
    ChatTemplate("chatml", None, _CHATML, ("<|im_end|>",)),
    ChatTemplate("chatml-llava", "You are a helpful assistant.", _CHATML, ("<|im_end|>",),
                 "<image>\n"),
    ChatTemplate("vicuna_v1.1", (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions."), {
        "system": ("", " "), "user": ("USER:", " "), "assistant": ("ASSISTANT:", "</s>")},
        (), " <image>\n"),
    ChatTemplate("llama-2-chat", None, {
        "system": ("<<SYS>>\n", "\n<</SYS>>\n\n"), "user": ("[INST] ", " [/INST]"),
        "assistant": ("", " </s><s>")}, style=ChatTemplateStyle.LLAMA2),
    ChatTemplate("yi", (
        "This is a chat between an inquisitive human and an AI assistant. Assume the role of the "
        "AI assistant. Read all the images carefully, and respond to the human's questions with "
        "informative, helpful, detailed and polite answers."
        "这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。"
        "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。"), {  # noqa: RUF001
        "system": ("", "\n\n"), "user": ("### Human:", "\n"),
        "assistant": ("### Assistant:", "\n")},
        (), " <image_placeholder>\n"),
    ChatTemplate("gemma-it", None, {
        "system": ("", ""), "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
        "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n")}),
)
"""The plain templates of early SGLang, same names and texts (sources: the models' own cards)."""


def _built_in_match(path: str) -> str | None:
    """The built-in template that SGLang chose for a model's path, if any."""
    path = path.lower()
    chat = "chat" in path or "instruct" in path
    if "vicuna" in path or "llava-v1.5" in path:
        return "vicuna_v1.1"
    mistral = any(name in path for name in ("mistral", "mixtral", "codellama"))
    if ("llama-2" in path and "chat" in path) or ("instruct" in path and mistral):
        return "llama-2-chat"
    if "llava-v1.6-34b" in path:
        return "chatml-llava"
    if "yi-vl" in path:
        return "yi"
    if "gemma" in path and "it" in path.replace("/", "-").split("-"):
        return "gemma-it"
    return "chatml" if chat and ("tinyllama" in path or "qwen" in path) else None


@dataclass(slots=True)
class TemplateRegistry:
    """Templates by name, and functions that choose one for a model's path (the last added
    first).  One value per session of sglc; it starts with the built-in ones."""

    templates: dict[str, ChatTemplate] = field(
        default_factory=lambda: {t.name: t for t in BUILT_IN})
    matchers: list[Callable[[str], ChatTemplate | str | None]] = field(
        default_factory=lambda: [_built_in_match])

    def register(self, template: ChatTemplate) -> None:
        self.templates[template.name] = template

    def register_matching_function(
            self, match: Callable[[str], ChatTemplate | str | None]) -> None:
        self.matchers.append(match)

    def get(self, name: str) -> ChatTemplate:
        """The template of this name; SGLC311 if there is none."""
        if name not in self.templates:
            raise TokenError("SGLC311", f"there is no chat template named {name!r}",
                             why="known are " + ", ".join(sorted(self.templates)))
        return self.templates[name]

    def by_model_path(self, path: str) -> ChatTemplate:
        """What the matching functions choose for a model's path; `default` if none does."""
        for match in reversed(self.matchers):
            found = match(path)
            if found is not None:
                return found if isinstance(found, ChatTemplate) else self.get(found)
        return self.get("default")

    def resolve(self, which: str | ChatTemplate | None, tokenizer: Tokenizer) -> Template:
        """The template that a user asked for by value, by name or as jinja text; None means
        the tokenizer's own, or `default` if it has none."""
        if isinstance(which, ChatTemplate):
            return which.bind(tokenizer)
        if which is None:
            which = tokenizer.chat_template or "default"
        if "{{" in which or "{%" in which:
            from sglc.tokens.jinja import JinjaTemplate

            return JinjaTemplate(which, tokenizer)
        return self.get(which).bind(tokenizer)

    def for_tokenizer(self, tokenizer: Tokenizer) -> Template:
        return self.resolve(None, tokenizer)


def for_tokenizer(tokenizer: Tokenizer) -> Template:
    """The tokenizer's own jinja template, or the plain `default` if it has none."""
    return TemplateRegistry().for_tokenizer(tokenizer)


def piece_text(pieces: tuple[Piece, ...]) -> str:
    """The template text of pieces, control tokens by name."""
    return "".join([p.name if isinstance(p, SpecialPiece) else p for p in pieces])
