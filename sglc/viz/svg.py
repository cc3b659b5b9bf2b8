"""A program's prompt graph as one SVG file: text bars, calls, branches, left to right.

The file needs nothing else (no scripts, no fonts, no links), follows the reader's light or dark
setting, and whatever a program's texts hold is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sglc.errors import Diagnostic
from sglc.ir.module import Module, Program
from sglc.tokens.tokenizer import Tokenizer
from sglc.viz.assets import asset
from sglc.viz.drawing import MARGIN, Drawing
from sglc.viz.escape import escaped
from sglc.viz.facts import Facts, facts
from sglc.viz.picture import Node, picture
from sglc.viz.repeats import folded
from sglc.viz.shapes import text

_LEGEND = (("constant", "constant text"), ("special", "control tokens, role"),
           ("value", "text known at run time"), ("gen", "gen"), ("select", "select"),
           ("branch", "branch"), ("host", "host call"))


def svg(program: Module | Program, tokenizer: Tokenizer | None = None, *,
        fold: bool = False) -> str:
    """The graph of a program, or of all programs of a module one below the other, as SVG text.

    Bars are appended text, as wide as it is long (up to a limit) and as thick as it is read
    often; boxes are model calls; a diamond is a branch.  Solid lines continue a prompt, dashed
    ones carry a result into text.  Every shape has a tooltip with its full text and its place in
    the source.

    tokenizer: count tokens, not characters.  fold: show subtrees that repeat once ("x48").
    """
    programs = [program] if isinstance(program, Program) else list(program.programs.values())
    return draw([Picture.of(p, tokenizer, fold=fold) for p in programs], standalone=True)


@dataclass(frozen=True, slots=True)
class Picture:
    """A program, its boxes, what is known of them, and their numbers (None: they need none)."""

    program: Program
    nodes: list[Node]
    facts: dict[Node, Facts] | None = None
    numbers: dict[Node, int] | None = None

    @classmethod
    def of(cls, program: Program, tokenizer: Tokenizer | None = None,
           remarks: Iterable[Diagnostic] = (), *, fold: bool = False) -> Picture:
        nodes = picture(program)
        if fold:
            nodes = list(folded(nodes).values())
        known = None if tokenizer is None else facts(nodes, tokenizer, remarks)
        return cls(program, nodes, known)


def draw(pictures: Iterable[Picture], *, standalone: bool = False) -> str:
    """Pictures one below the other.  standalone: with styles, as a file of its own."""
    parts: list[str] = []
    names: list[str] = []
    top, wide = 0.0, 0.0
    for p in pictures:
        drawing = Drawing(p.program, p.nodes, top, p.facts, p.numbers)
        parts += drawing.parts
        names.append(p.program.name)
        top, wide = drawing.bottom, max(wide, drawing.wide)
    legend, reach = _legend(top)
    parts += legend
    wide = max(wide, reach)
    style = f"<style>{asset('graph.css')}</style>\n" if standalone else ""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="sglc" width="{wide:.0f}" '
            f'height="{top + 48:.0f}" viewBox="0 0 {wide:.0f} {top + 48:.0f}" '
            f'role="{"img" if standalone else "group"}">\n'
            f'<title>{escaped(", ".join(names))}</title>\n{style}'
            '<rect class="paper" width="100%" height="100%"/>\n' + "\n".join(parts)
            + "\n</svg>\n")


def _legend(top: float) -> tuple[list[str], float]:
    """What the colours mean, in one line, and where that ends."""
    out, x, y = [], MARGIN, top + 24
    for kind, label in _LEGEND:
        out.append(f'<rect class="{kind}" x="{x:.1f}" y="{y - 10:.1f}" width="16" height="12" '
                   'rx="2"/>')
        out.append(text(x + 22, y, label, "small"))
        x += 44 + 6 * len(label)
    return out, x
