"""A Sphinx extension: docstrings as they are written here, as reStructuredText.

They are plain text with `code` in backquotes, lists, and entries (`name: what it is`) whose later
lines are indented.  Knows nothing of what they say.
"""

from __future__ import annotations

import re
from typing import Any

_ENTRY = re.compile(r"(\w[\w ,=*().\"]*): (.*)", re.S)
_NAMED = re.compile(r"[a-z]\w*(, [a-z]\w*)*: ")  # of parameters
_SPECIAL = re.compile(r"([\\*_|])")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _rewritten)
    return {"parallel_read_safe": True}


def _rewritten(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured("\n".join(lines)).split("\n")


def restructured(docstring: str) -> str:
    """A docstring as reStructuredText: a summary, paragraphs, and a list for a run of entries."""
    found = [b for b in re.split(r"\n\s*\n", docstring.strip("\n")) if b.strip()]
    first = [_inline(" ".join(found[0].split()))] if found and "    " not in found[0] else []
    return "\n\n".join(first + [_block(block) for block in found[len(first):]])


def _block(block: str) -> str:
    items: list[str] = []  # each a line with its indented continuations joined
    for line in block.split("\n"):
        if items and line.startswith(" "):
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    indented = any(line.startswith("    ") for line in block.split("\n"))
    if not (indented or _NAMED.match(items[0]) or items[0].startswith("- ")):
        return _inline(" ".join(items))
    return "\n".join([_item(item) for item in _whole(items)])


def _whole(items: list[str]) -> list[str]:
    """Items with lines that begin nothing put to the one before."""
    out: list[str] = []
    for item in items:
        if out and not _ENTRY.fullmatch(item) and not item.startswith("- "):
            out[-1] += " " + item
        else:
            out.append(item)
    return out


def _item(item: str) -> str:
    entry = _ENTRY.fullmatch(item)
    if item.startswith("- "):
        return "* " + _inline(item[2:])
    return f"* **{_inline(entry[1])}**: {_inline(entry[2])}" if entry else _inline(item)


def _inline(text: str) -> str:
    """Code in backquotes as literals, and everything else without markup."""
    parts = text.split("`")
    return "".join([f"``{part}``" if i % 2 else _SPECIAL.sub(r"\\\1", part)
                    for i, part in enumerate(parts)])
