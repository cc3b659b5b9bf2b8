"""The graph page: the prefix tree, and for each box all that is known of it."""

from __future__ import annotations

from typing import Any

from sglc.errors import Diagnostic, Place
from sglc.ir.literals import write
from sglc.ir.module import Op, Program
from sglc.ir.ops import SAMPLING_ATTRS
from sglc.viz.escape import short
from sglc.viz.facts import MOST_TEXT, Facts, facts
from sglc.viz.markup import el, many, raw, table
from sglc.viz.pages import Page
from sglc.viz.pages.places import Places, brief
from sglc.viz.picture import Node, Piece, edges, picture
from sglc.viz.repeats import folded
from sglc.viz.subject import Subject
from sglc.viz.svg import Picture, draw

_READERS = 200  # named of one box
_SHOWN = 160  # characters of a text in the table


class Graph:
    """The boxes of a subject's programs, numbered."""

    def __init__(self, subject: Subject, places: Places) -> None:
        self.subject = subject
        self.places = places
        module = subject.drawn
        self.programs: list[Program] = [] if module is None else list(module.programs.values())
        self.pictures = {p: picture(p) for p in self.programs}
        self.nodes = [n for nodes in self.pictures.values() for n in nodes]
        self.numbers = {n: i for i, n in enumerate(self.nodes)}
        self.facts: dict[Node, Facts] = {}
        for nodes in self.pictures.values():
            self.facts |= facts(nodes, subject.tokenizer, subject.remarks)
        self.of_op: dict[Op, int] = {op: self.numbers[n] for n in self.nodes for op in n.ops}

    def page(self) -> Page:
        folds = {p: folded(nodes) for p, nodes in self.pictures.items()}
        known = self.facts if self.subject.tokenizer is not None else None
        whole = draw([Picture(p, nodes, known, self.numbers)
                      for p, nodes in self.pictures.items()])
        fewer = sum(map(len, folds.values())) < len(self.nodes)
        drawings = [el("div", raw(whole), class_="drawing", id="graph-all", hidden=fewer)]
        if fewer:
            brief_ = draw([Picture(
                p, list(fold.values()),
                None if known is None else {new: known[old] for old, new in fold.items()},
                {new: self.numbers[old] for old, new in fold.items()})
                for p, fold in folds.items()])
            drawings.insert(0, el("div", raw(brief_), class_="drawing", id="graph-folded"))
        body = many(
            el("p", self._summary(), class_="lead"),
            el("div", drawings, class_="canvas", tabindex="0", role="region",
               aria_label="the graph; arrow keys go from box to box"),
            el("details", el("summary", f"All {len(self.nodes)} boxes as a table"),
               self._table()))
        return Page("graph", "Graph", body, {
            "nodes": [self._node(n) for n in self.nodes], "folds": fewer,
            "edges": len([e for nodes in self.pictures.values() for e in edges(nodes)])})

    def _summary(self) -> str:
        kinds: dict[str, int] = {}
        for n in self.nodes:
            kinds[n.kind] = kinds.get(n.kind, 0) + 1
        names = {"gen": ("gen", "gens"), "select": ("select", "selects"),
                 "branch": ("branch", "branches"), "host": ("host call", "host calls")}
        words = [f"{kinds[k]} {many_ if kinds[k] > 1 else one}"
                 for k, (one, many_) in names.items() if k in kinds]
        known = [f.tokens.value or 0 for n, f in self.facts.items() if n.kind == "text"]
        if self.subject.tokenizer is not None:
            words.append(f"{sum(known):,} constant tokens, each prefix once")
        if self.subject.rows > 1:
            words.append(f"{self.subject.rows} rows")
        return (", ".join(words) + ".  A bar is text in the prompt: as long as it has tokens, as "
                "thick as calls read it.  Solid lines continue a prompt; dashed ones carry a "
                "result into text.")

    # -- one box ----------------------------------------------------------------------------
    def _node(self, n: Node) -> dict[str, Any]:
        f = self.facts[n]
        out: dict[str, Any] = {
            "kind": n.kind, "title": title(n), "detail": n.detail,
            "program": next(p.name for p, nodes in self.pictures.items() if n in nodes)
            if len(self.programs) > 1 else "",
            "parent": None if n.parent is None else self.numbers[n.parent],
            "children": [self.numbers[c] for c in n.children if c in self.numbers],
            "places": [[self.places.key(op.loc), _where(op.loc)] for op in _first_of_each(n)],
            "facts": self._facts(n, f),
            "pieces": [{
                "kind": p.kind, "text": p.text[:MOST_TEXT], "tokens": f.spelled[i],
                "exact": p.ids is not None, "held": p.held[:MOST_TEXT]}
                for i, p in enumerate(n.pieces)],
            "readers": [self.numbers[r] for r in f.readers[:_READERS]],
            "readerCount": len(f.readers),
            "sources": [self.numbers[s] for s in n.sources],
            "options": _options(n), "remarks": [_remark(d) for d in f.remarks]}
        return out

    def _facts(self, n: Node, f: Facts) -> list[tuple[str, str]]:
        out = [("tokens", str(f.tokens))] if n.kind in ("text", "gen", "select") else []
        if f.before is not None and n.kind != "merge":
            out.append(("tokens in front", f"= {f.before:,}"))
        if self.subject.kv_bytes is not None and f.tokens.value:
            mark = f.tokens.mark
            out.append(("KV", f"{mark} {size(f.tokens.value * self.subject.kv_bytes)}"))
        if n.kind == "text":
            out.append(("shared", "by all rows of a batch: the same ids from the start"
                        if f.everywhere else "among the calls of one row only"))
        if f.until is not None:
            last = f.until
            out.append(("KV held until", f"{title(last)} ({brief(_place(last))}) has been read"))
        elif n.kind in ("text", "gen"):
            out.append(("KV held until", "the end of its own call" if n.kind == "gen" else
                        "not held: no call reads it"))
        if f.readers:
            out.append(("read by", f"{len(f.readers)} call{'s' if len(f.readers) > 1 else ''}"))
        return out

    def _table(self) -> object:
        rows = []
        for n in self.nodes:
            f = self.facts[n]
            shown = dict(self._facts(n, f))
            rows.append((str(self.numbers[n]), n.kind, short(title(n), _SHOWN),
                         "" if n.kind in ("merge", "branch", "host") else str(f.tokens),
                         shown.get("KV", ""), str(len(f.readers) or ""),
                         "" if f.until is None else brief(_place(f.until)), brief(_place(n)),
                         " ".join(dict.fromkeys(d.code for d in f.remarks))))
        return table(("", "kind", "what", "tokens", "KV", "read by", "held until", "place",
                      "remarks"), rows)


def title(n: Node) -> str:
    """A box in a few words."""
    if n.kind == "text":
        return "".join(f"{{{p.text}}}" if p.kind == "value" else f"⟨{_label(p)}⟩ "
                       if p.kind == "special" else p.text for p in n.pieces)[:_SHOWN * 4]
    if n.kind == "branch":
        return f"{n.title}?"
    return n.title or ("the arms meet" if n.kind == "merge" else n.kind)


def _label(p: Piece) -> str:
    return (p.label or p.text).replace("\n", "⏎")


def size(n: float) -> str:
    """A number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return f"{n:.0f} {unit}" if unit == "B" or n >= 100 else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError


def _options(n: Node) -> list[tuple[str, str]]:
    if n.kind not in ("gen", "select") or not n.ops:
        return []
    attrs = n.ops[0].attrs
    names = [a for a in (*SAMPLING_ATTRS, "method", "states", "classes", "most_tokens")
             if a in attrs]
    return [(a, short(write(attrs[a]), 2000)) for a in names]


def _first_of_each(n: Node) -> list[Op]:
    """The first op of a box on each line of source, a few."""
    by_line = {(op.loc.file, op.loc.line): op for op in reversed(n.ops) if op.loc is not None}
    return list(reversed(by_line.values()))[:12]


def _place(n: Node) -> Place | None:
    return next((op.loc for op in n.ops if op.loc is not None), None)


def _where(place: Place | None) -> str:
    return "" if place is None else f"{place.file}:{place.line}:{place.col}"


def _remark(d: Diagnostic) -> dict[str, Any]:
    return {"code": d.code, "what": d.what, "why": d.why, "effect": d.effect,
            "fixes": list(d.fixes)}
