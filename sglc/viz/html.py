"""The viewer: one HTML file with all pages, that needs no network and shows everything without
scripts.

Its policy allows no request at all, and no style or script but those written here.  What the
program says is escaped text, or JSON that scripts only ever set as text.
"""

from __future__ import annotations

import base64
import hashlib

from sglc.viz.assets import asset
from sglc.viz.escape import json_block
from sglc.viz.markup import Html, el, many, raw
from sglc.viz.pages import Page, cost, grammar, passes, plan, source
from sglc.viz.pages.graph import Graph
from sglc.viz.pages.places import Places, brief
from sglc.viz.subject import Subject

STYLES = ("graph.css", "viewer.css")
SCRIPTS = ("dom.js", "graph.js", "detail.js", "source.js", "passes.js", "viewer.js")


def pages(subject: Subject) -> list[Page]:
    """All pages, in the order of their tabs."""
    places = Places()
    graph = Graph(subject, places)
    return [graph.page(), source.page(subject, places, graph.of_op), passes.page(subject, places),
            plan.page(subject), grammar.page(subject), cost.page(subject, graph)]


def document(subject: Subject) -> str:
    """The whole file."""
    found = pages(subject)
    style = "\n".join([asset(name) for name in STYLES])
    script = '"use strict";\n(() => {\n' + "\n".join([asset(n) for n in SCRIPTS]) + "})();\n"
    policy = (f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
              "img-src data:; base-uri 'none'; form-action 'none'")
    head = el("head", el("meta", charset="utf-8"),
              el("meta", http_equiv="Content-Security-Policy", content=policy),
              el("meta", name="viewport", content="width=device-width, initial-scale=1"),
              el("meta", name="color-scheme", content="light dark"),
              el("meta", name="generator", content="sglc"),
              el("title", f"{subject.name} · sglc"), raw(f"<style>{style}</style>"))
    data = json_block({p.key: p.data for p in found if p.data is not None})
    body = el(
        "body", _header(subject, found),
        el("main", [el("section", el("h2", p.title), p.body, id=p.key, class_="page")
                    for p in found], id="main"),
        raw(f'<script type="application/json" id="data">{data}</script>'
            f"<script>{script}</script>"), class_="sglc")
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _header(subject: Subject, found: list[Page]) -> Html:
    figures = []
    if subject.steps:
        first, last = subject.steps[0].record, subject.steps[-1].record
        figures = [f"{first.calls_before} → {last.calls} model calls"
                   if first.calls_before != last.calls else
                   f"{last.calls} model call{'s' if last.calls != 1 else ''}",
                   f"{len(subject.breaks)} graph breaks" if len(subject.breaks) != 1
                   else "1 graph break"]
    notes = [el("details", el("summary", f"{d.code} {d.what}"), el("pre", str(d)), class_=kind)
             for kind, ds in (("break", subject.breaks), ("remark", subject.remarks)) for d in ds]
    assumed = ", ".join(f"{k}={v}" for k, v in subject.assumed.items())
    return el(
        "header", el("h1", subject.name, " ", el("small", brief(subject.place),
                                                  title=str(subject.place))),
        el("p", " · ".join([*figures, f"tokens: {subject.tokens or 'none'}"]
                           + ([f"assumed {assumed} (no argument was given)"] if assumed else [])),
           class_="figures"),
        el("details", el("summary", f"{len(notes)} remark{'s' if len(notes) != 1 else ''}"), notes,
           class_="notes") if notes else None,
        el("nav", [el("a", p.title, href=f"#{p.key}", data_tab=p.key) for p in found], id="tabs"))


def fragment(subject: Subject, picture: str) -> str:
    """What a notebook cell shows: the picture as an image (its styles stay its own), what the
    passes did, the IR; no script, no style sheet.

    picture: an SVG file's text.
    """
    image = base64.b64encode(picture.encode()).decode()
    stages = [el("details", el("summary", f"IR: {name}"), el("pre", text))
              for name, text in (("as traced", subject.before),
                                 *(((f"after {subject.steps[-1].record.name}",
                                     subject.steps[-1].text),) if subject.steps else ()))]
    remarks = [el("details", el("summary", f"{d.code} {d.what}"), el("pre", str(d)))
               for d in (*subject.breaks, *subject.remarks)]
    return str(el(
        "div", el("p", el("b", subject.name), f"  {brief(subject.place)}"),
        el("div", el("img", src=f"data:image/svg+xml;base64,{image}", style="max-width: none",
                     alt=f"the graph of the program {subject.name}"), style="overflow-x: auto"),
        el("details", el("summary", passes_line(subject)), passes.figures(subject))
        if subject.steps else None, many(remarks), many(stages)))


def passes_line(subject: Subject) -> str:
    """The passes in one line."""
    first, last = subject.steps[0].record, subject.steps[-1].record
    return (f"{len(subject.steps)} passes: {first.ops_before} → {last.ops} operations, "
            f"{first.calls_before} → {last.calls} model calls")


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
