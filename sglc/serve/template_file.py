"""`--chat-template`: a name, a file as SGLang takes it, or jinja, as a template.

SGLang's JSON form has one separator and the opening text of each role; styles that need more, or
that rewrite contents, cannot be given in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sglc.errors import TokenError
from sglc.tokens.templates import ChatTemplate

_ALIASES = {"llama-2": "llama-2-chat"}

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
    """What `Engine(chat_template=)` takes.  Raises TokenError SGLC311."""
    if given is None:
        return None
    if not given.endswith((".json", ".jinja", ".jinja2")):
        return _ALIASES.get(given, given)
    try:
        text = Path(given).expanduser().read_text(encoding="utf-8")
        if not given.endswith(".json"):
            return text
        data = json.loads(text)
    except (OSError, ValueError) as error:
        raise TokenError("SGLC311", f"the chat template {given} cannot be read",
                         why=str(error)) from None
    return template_of(data)


def template_of(data: Any) -> ChatTemplate:
    """The template of SGLang's JSON form."""
    if not isinstance(data, dict) or any(k not in data for k in _REQUIRED):
        raise TokenError("SGLC311", "a chat template in JSON must have "
                         + ", ".join(_REQUIRED))
    style = data["sep_style"]
    if style not in _STYLES:
        raise TokenError("SGLC311", f"the sep_style {style!r} is not supported",
                         why="known are " + ", ".join(sorted(_STYLES)) + "; others need more "
                         "than this form can say",
                         fixes=("use a built-in template, or one in jinja",))
    given, _, after = _STYLES[style]
    sep = data.get("sep", "\n") + after
    stops = data["stop_str"]
    return ChatTemplate(
        data["name"], data.get("system_message", ""), {
            "system": (data["system"] + "\n", sep), "user": (data["user"] + given, sep),
            # An answer begins where SGLang's does; history then has the same text.
            "assistant": (data["assistant"] + _STYLES[style][1], sep)},
        tuple([stops] if isinstance(stops, str) else stops or ()))
