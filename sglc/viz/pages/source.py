"""The source page: the program as written beside its IR at each stage, linked line by line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sglc.ir.module import Module, Op, Program
from sglc.ir.printer import print_program
from sglc.viz.markup import Html, el, many
from sglc.viz.pages import Page
from sglc.viz.pages.places import Places, excerpts, name
from sglc.viz.subject import Subject

_ELIDE = 400  # characters of a literal
_NOTE = re.compile(r"  \[# op (\d+)\]$")
STAGES = {"traced": "as traced", "prompt": "prompt: optimised, model-free",
          "kv": "kv: in tokens", "plan": "plan: with ranks"}


def page(subject: Subject, places: Places, of_op: Mapping[Op, int]) -> Page:
    """of_op: the box of the graph that an op is part of."""
    stages = {key: _lines(module, places, of_op) for key, module in subject.stages.items()}
    named: dict[str, set[int]] = {}
    first, count = subject.place.line, subject.lines
    named[subject.place.file] = {*range(first, first + count)}
    for module in subject.stages.values():
        for op in module.walk():
            if op.loc is not None:
                named.setdefault(op.loc.file, set()).add(op.loc.line)
    files = [_file(file, lines, places) for file, lines in named.items()]
    plain = [el("details", el("summary", STAGES.get(key, key)),
                el("pre", "\n".join([line["text"] for line in lines])), open=i == 0)
             for i, (key, lines) in enumerate(stages.items())]
    body = many(el("div", el("section", el("h3", "Source"), files, class_="source"),
                   el("section", el("h3", "IR"), el("div", plain, class_="plain"), class_="ir",
                      id="ir"), class_="beside"))
    return Page("source", "Source and IR", body, {
        "stages": [{"key": key, "title": STAGES.get(key, key), "lines": lines}
                   for key, lines in stages.items()]})


def _file(file: str, named: set[int], places: Places) -> Html:
    number = places.files.setdefault(file, len(places.files))
    rows, last = [], 0
    for line, text in excerpts(file, named):
        if last and line > last + 1:
            rows.append(el("div", "⋮", class_="gap"))
        rows.append(el("div", el("span", str(line), class_="no"), el("code", text or " "),
                       class_="line", data_place=f"{number}:{line}"))
        last = line
    if not rows:
        rows = [el("p", "The source cannot be read.")]
    return el("figure", el("figcaption", name(file), title=file), rows)


def _lines(module: Module, places: Places, of_op: Mapping[Op, int]) -> list[dict[str, Any]]:
    """The lines of a module's text: with its op's number (in the order of the text), place and
    box."""
    out: list[dict[str, Any]] = []
    for program in module.programs.values():
        out += _program(program, places, of_op)
    return out


def _program(program: Program, places: Places, of_op: Mapping[Op, int]) -> list[dict[str, Any]]:
    ops = list(program.walk())
    numbers = {op: i for i, op in enumerate(ops)}
    printed = print_program(program, locs=False, elide=_ELIDE,
                            notes=lambda op: f"# op {numbers[op]}")
    out: list[dict[str, Any]] = []
    for text in printed.rstrip("\n").split("\n"):
        found = _NOTE.search(text)
        line: dict[str, Any] = {"text": text if found is None else text[:found.start()]}
        if found is not None:
            op = ops[int(found[1])]
            line |= {"op": int(found[1]), "place": places.key(op.loc), "box": of_op.get(op)}
        out.append(line)
    return out
