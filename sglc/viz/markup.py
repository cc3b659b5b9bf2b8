"""HTML from Python: elements whose texts and attributes are escaped where they are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sglc.viz.escape import escaped


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def el(tag: str, *children: object, **attributes: object) -> Html:
    """An element.  Children are text (escaped), Html, or lists of these; an attribute's trailing
    underscore goes, others become hyphens; True stands alone, None and False are left out."""
    given = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        given.append(f" {name}" if value is True else f' {name}="{escaped(str(value))}"')
    start = f"<{tag}{''.join(given)}>"
    return Html(start if tag in ("meta", "img") else f"{start}{_inner(children)}</{tag}>")


def raw(markup: str) -> Html:
    """Markup that other code has made safe."""
    return Html(markup)


def many(*children: object) -> Html:
    """Children without an element around them."""
    return Html(_inner(children))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object) -> Html:
    """A table with a header row; cells that are numbers, or begin with a mark, stand right."""
    body = [el("tr", [el("td", cell, class_="n" if _number(cell) else None) for cell in row])
            for row in rows]
    return el("table", el("thead", el("tr", [el("th", h, scope="col") for h in head])),
              el("tbody", body), **attributes)


def _inner(children: Iterable[object]) -> str:
    out = []
    for child in children:
        if isinstance(child, Html):
            out.append(str(child))
        elif isinstance(child, str):
            out.append(escaped(child))
        elif isinstance(child, Iterable):
            out.append(_inner(child))
        elif child is not None:
            out.append(escaped(str(child)))
    return "".join(out)


def _number(cell: object) -> bool:
    return isinstance(cell, (int, float)) or (
        isinstance(cell, str) and not isinstance(cell, Html)
        and cell.lstrip("=~<+- ").replace(",", "").replace(".", "").isdigit())
