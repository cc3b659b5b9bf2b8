"""The viewer's pages: each is complete as HTML, and gives the data that scripts add to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sglc.viz.markup import Html


@dataclass(frozen=True, slots=True)
class Page:
    """One tab.  body: what it shows without scripts; data: what the scripts read, as plain
    data."""

    key: str
    title: str
    body: Html
    data: Any = field(default=None)
