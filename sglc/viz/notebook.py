"""A compiled program in a notebook cell: as text, as a picture, and as HTML that needs no
script."""

from __future__ import annotations

from sglc.viz.html import fragment
from sglc.viz.subject import Subject
from sglc.viz.svg import svg

_FOLD = 60  # boxes above which repeats are shown once


def bundle(subject: Subject, text: str) -> dict[str, str]:
    """The forms by MIME type; text alone where nothing was captured."""
    module = subject.drawn
    if module is None:
        return {"text/plain": text}
    ops = sum(1 for _ in module.walk())
    picture = svg(module, subject.tokenizer, fold=ops > _FOLD)
    return {"text/plain": text, "image/svg+xml": picture, "text/html": fragment(subject, picture)}
