"""A Sphinx extension: the pages of diagnostic codes in the documentation, with what each piece of
code on them is for.

`sglc explain` prints the same pages; there, the word after a block's language says it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_INCLUDE = re.compile(r"^````\{include\} \.\./(sglc/explain/pages/(\w+)\.md)\n"
                      r":heading-offset: (\d)\n````$", re.M)
_BLOCK = re.compile(r"^```python (bad|good)$", re.M)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}


def _read(app: Any, name: str, content: list[str]) -> None:
    if name == "diagnostics":
        content[0] = _INCLUDE.sub(lambda m: page(Path(app.srcdir).parent / m[1], m[2], int(m[3])),
                                  content[0])


def page(path: Path, code: str, deeper: int) -> str:
    """The text of a page, its headings so much deeper, its code with captions."""
    text = re.sub(r"^(#+ )", "#" * deeper + r"\1", path.read_text(encoding="utf-8"), flags=re.M)
    captions = {"bad": f"gives {code}", "good": "does not give it"}
    return _BLOCK.sub(lambda m: f"```{{code-block}} python\n:caption: {captions[m[1]]}\n", text)
