"""Pages on diagnostic codes: what a code means, code that gives it, code that does not.

Each is a Markdown file of `pages/`, named after the code.  This module reads them; it knows no
more of the codes than their titles.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import NamedTuple

from sglc.errors import CODES, LanguageError

_BLOCK = re.compile(r"^```python (bad|good)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A piece of code of a page; the bad ones give the page's code when run."""

    bad: bool
    source: str


def code_of(written: str) -> str:
    """The code that a reader means: `SGLC110`, `sglc110` or `110`; SGLC001 if there is none."""
    code = written.upper()
    code = f"SGLC{code}" if code.isdigit() else code
    if code not in CODES:
        raise LanguageError("SGLC001", f"there is no diagnostic code {written!r}",
                            fixes=("list them all: sglc explain",))
    return code


def page(code: str) -> str:
    """The Markdown page of a code of CODES."""
    return (files(__package__) / "pages" / f"{code}.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """The pieces of code of a page, in order."""
    return [Block(m[1] == "bad", m[2]) for m in _BLOCK.finditer(text)]
