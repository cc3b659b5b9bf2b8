"""Methods of known texts on values that are not known: `join` and `format`."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from sglc.trace.operators import kind_of
from sglc.trace.symbols import Sym

if TYPE_CHECKING:
    from sglc.trace.session import Session


def join_texts(session: Session, separator: str, items: list[Any]) -> Any:
    """`separator.join(items)` of items that are known, with texts that are not."""
    out: Any = ""
    for i, item in enumerate(items):
        if not (isinstance(item, str) or (isinstance(item, Sym) and item.is_text)):
            if isinstance(item, Sym) and item.recipe is None:
                return session.host("join", separator.join, items)
            raise session.broken("SGLC111", f"join() of {kind_of(item)}")
        out = item if i == 0 else out + separator + item
    return out


def format_template(session: Session, template: str, args: tuple, kwargs: dict) -> Any:
    """`template.format(...)`; a host call where it goes into its arguments."""
    parts: list[Any] = []
    auto = 0
    try:
        for text, name, spec, conversion in string.Formatter().parse(template):
            if text:
                parts.append(text)
            if name is None:
                continue
            if name == "":
                name, auto = str(auto), auto + 1
            value = args[int(name)] if name.isdigit() else kwargs[name]
            if "{" in (spec or ""):
                raise ValueError
            parts.append((value, conversion or "", spec or ""))
    except (ValueError, IndexError, KeyError):
        return session.host("format", str.format, template, *args, **kwargs)
    return session.format(parts)
