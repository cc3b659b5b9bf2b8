"""The viewer's style sheets and scripts, as they are written into pages."""

from __future__ import annotations

from importlib.resources import files


def asset(name: str) -> str:
    """The text of a file beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
