"""Text of unknown origin in markup: escaped, shortened, and without what hides or reorders other
text.

Whatever a program's prompts hold, what is written here stays text.
"""

from __future__ import annotations

import json
import re
from typing import Any

# What XML 1.0 cannot hold, and what would reorder or hide the text around it (controls, bidi
# marks and isolates, zero-width and tag characters, unpaired surrogates).
_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\u061b\u061d-\u200a\u2010-\u2027\u202f-\u205f"
                          "\u2070-\ud7ff\ue000-\ufdcf\ufdf0-\ufefe\uff00-\ufffd\U00010000-\U0001fffd]")
TIMES = "\N{MULTIPLICATION SIGN}"
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def visible(text: str) -> str:
    """Characters that XML cannot hold, or that hide or reorder others, as U+FFFD; line breaks
    and tabs too."""
    return _UNPRINTABLE.sub("�", text)


def lines(text: str) -> str:
    """`visible`, line breaks kept and tabs as four spaces."""
    return "\n".join([visible(line) for line in text.replace("\t", "    ").split("\n")])


def escaped(text: str) -> str:
    """Text for an element or a quoted attribute of an HTML or XML document."""
    return lines(text).translate(_MARKUP)


def short(text: str, length: int) -> str:
    """At most `length` characters, an ellipsis where some are left out."""
    return text if len(text) <= length else text[:max(length - 1, 0)] + "…"


def json_block(data: Any) -> str:
    """Data as JSON that can stand in a `<script type="application/json">` of an HTML document:
    nothing in it can end the script, and what hides or reorders text is U+FFFD."""
    written = visible(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

