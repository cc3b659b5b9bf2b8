"""Markdown whose code is run: its blocks, the outputs that it shows, and its commands.

Python blocks of a document are one script.  A `text` or `diff` block right after one is what it
prints; a `console` block holds commands, a line each.  Knows no document in particular.
"""

from __future__ import annotations

import io
import os
import re
import runpy
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

MARK = "\x1e"  # printed after each block


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and where the text is in the document."""

    language: str
    text: str
    start: int
    end: int


def blocks(document: str) -> list[Block]:
    return [Block(m[1], m[2], m.start(2), m.end(2))
            for m in re.finditer(r"^```(\w+)\n(.*?)^```$", document, re.M | re.S)]


def expected(document: str, language: str = "python") -> Iterator[tuple[Block, Block | None]]:
    """Every block of a language, with the block right after it that shows its output."""
    found = blocks(document)
    for i, block in enumerate(found):
        if block.language == language:
            after = found[i + 1] if i + 1 < len(found) else None
            shown = after is not None and after.language in ("text", "diff")
            yield block, after if shown else None


def outputs(document: str, folder: Path, name: str) -> list[str]:
    """What each python block prints, all run in `folder` as one script, `name.py`."""
    script = folder / f"{name}.py"
    script.write_text("".join(f"{b.text}\nprint({MARK!r})\n" for b, _ in expected(document)))
    said = io.StringIO()
    here = Path.cwd()
    os.chdir(folder)  # so that places in what is printed are short
    try:
        with redirect_stdout(said):
            runpy.run_path(script.name)
    finally:
        os.chdir(here)
    return [text.strip("\n") for text in said.getvalue().split(MARK)[:-1]]


def commands(document: str, starting: str) -> list[str]:
    """The commands of console blocks that start so."""
    lines = [line for b in blocks(document) if b.language == "console"
             for line in b.text.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line[2:] for line in lines if line[2:].startswith(starting)]


def rewrite(path: Path, run: Callable[[str], list[str]], language: str = "python") -> None:
    """Put what the blocks of a language print now into a document."""
    document = path.read_text(encoding="utf-8")
    printed = list(zip(run(document), expected(document, language), strict=True))
    for text, (_, output) in reversed(printed):
        if output is not None:
            text = "\n".join([line.rstrip() for line in text.splitlines()])
            document = document[:output.start] + text + "\n" + document[output.end:]
    path.write_text(document, encoding="utf-8")
