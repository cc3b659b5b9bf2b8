"""`--chat-template`: a name, a file as SGLang takes it, or jinja, as a template.

SGLang's JSON form has one separator and the opening text of each role; styles that need more, or
that rewrite contents, cannot be given in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from sglc.errors import TokenError
from sglc.tokens.templates import ChatTemplate

_ALIASES = {"llama-2": "llama-2-chat"}
_MOST_BYTES = 1 << 20  # of a file

# style -> (after a role's name before its text, after a role's name that is to be continued,
#           what follows the separator)
_STYLES = {
    "ADD_COLON_SINGLE": (": ", ":", ""), "ADD_COLON_SPACE_SINGLE": (": ", ": ", ""),
    "ADD_NEW_LINE_SINGLE": ("\n", "\n", ""), "NO_COLON_SINGLE": ("", "", ""),
    "CHATML": ("\n", "\n", "\n"), "ROBIN": (":\n", ":\n", ""),
    "FALCON_CHAT": (": ", ":", ""),
}
_REQUIRED = ("name", "system", "user", "assistant", "sep_style", "stop_str")


def read_template(given: str | None) -> str | ChatTemplate | None:
    """What `Engine(chat_template=)` takes.  Raises TokenError SGLC311, which names the file."""
    if given is None:
        return None
    if not given.endswith((".json", ".jinja", ".jinja2")):
        return _ALIASES.get(given, given)
    try:
        with Path(given).expanduser().open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        text = content.decode("utf-8")
        data = json.loads(text) if given.endswith(".json") else None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenError("SGLC311", f"the chat template {given} cannot be read",
                         why=str(error)[:200]) from None
    if data is not None or given.endswith(".json"):
        return template_of(data, given)
    if "{{" not in text and "{%" not in text:
        raise TokenError("SGLC311", f"{given} is no jinja template",
                         why="there is no {{ }} and no {% %} in it")
    return text


def template_of(data: Any, place: str = "the chat template") -> ChatTemplate:
    """The template of SGLang's JSON form; `place` names it in errors."""
    def refuse(why: str, *fixes: str) -> NoReturn:
        raise TokenError("SGLC311", f"{place} cannot be used", why=why, fixes=fixes)

    if not isinstance(data, dict):
        refuse("it is not a JSON object")
    if missing := [name for name in _REQUIRED if name not in data]:
        refuse(f"there is no {missing[0]}; a template in JSON has {', '.join(_REQUIRED)}")
    texts = {"system_message": "", "sep": "\n", **data}
    for name in ("name", "system", "user", "assistant", "sep_style", "system_message", "sep"):
        if not isinstance(texts[name], str):
            refuse(f"{name} is {repr(texts[name])[:60]}, not a text")
    stops = data["stop_str"]
    stops = [stops] if isinstance(stops, str) else stops or []
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        refuse(f"stop_str is {repr(stops)[:60]}, not a text or a list of texts")
    if (style := texts["sep_style"]) not in _STYLES:
        refuse(f"the sep_style {style[:60]!r} is not supported; known are "
               + ", ".join(sorted(_STYLES)) + "; others need more than this form can say",
               "use a built-in template, or one in jinja")
    given, opened, after = _STYLES[style]
    sep = texts["sep"] + after
    return ChatTemplate(
        texts["name"], texts["system_message"], {
            "system": (texts["system"] + "\n", sep), "user": (texts["user"] + given, sep),
            # An answer begins where SGLang's does; history then has the same text.
            "assistant": (texts["assistant"] + opened, sep)},
        tuple(stops))
