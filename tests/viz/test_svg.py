"""The drawing is valid, self-contained XML for any program, whatever its texts hold."""

from __future__ import annotations

import itertools
import re
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given

import sglc as sgl
from sglc.ir.module import Module
from sglc.viz.layout import layout
from sglc.viz.picture import Node, picture
from sglc.viz.svg import svg
from tests.ir.ir_modules import modules
from tests.passes.random_modules import random_module

NS = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text></svg><script>alert(1)</script>&amp;]]><!-- \x00\x1b\ud800\ufffe\u202e \"'"


@sgl.program
def everything(s, topic):
    s += sgl.system("You are brief.") + sgl.user(f"Tips on {topic}?")
    forks = s.fork(2)
    for i, f in enumerate(forks):
        f += f"Tip {i}: " + sgl.gen("tip", max_tokens=8)
    s += "1: " + forks[0]["tip"] + " 2: " + forks[1]["tip"].upper() + HOSTILE
    s += sgl.select("tool", ["calculator", HOSTILE])
    if s["tool"] == "calculator":
        s += "expression" + sgl.gen("expression", regex="[0-9]+")


def texts(drawing: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(drawing).iter(NS + "text")]


def boxes(module: Module) -> list[Node]:
    return picture(next(iter(module.programs.values())))


@pytest.fixture(scope="module")
def stages() -> dict[str, Module]:
    return everything.compile().stages  # type: ignore[no-any-return]


@pytest.mark.parametrize("stage", ["traced", "prompt", "kv", "plan"])
def test_shows_the_program_at_every_stage(stages: dict[str, Module], stage: str) -> None:
    shown = texts(svg(stages[stage]))
    assert "everything(topic)" in shown
    for label in ("select tool", "gen expression", "{topic}", "{tip.upper()}", "yes",
                  'tool = "calculator"'):
        assert label in shown, label
    assert shown.count("gen tip") == 2


def test_the_tree(stages: dict[str, Module]) -> None:
    """The forks continue the shared text, their results go into the text that uses them."""
    nodes = boxes(stages["prompt"])
    first, second = (n for n in nodes if n.title == "gen tip")
    assert first.parent is not second.parent
    shared = first.parent.parent
    assert shared is second.parent.parent and shared.parent is None
    text = "".join(p.text for p in shared.pieces)
    assert "You are brief." in text and text.endswith("topic?<|im_end|>\n")
    summary = next(n for n in nodes if n.sources)
    assert summary.sources == [first, second] and summary.parent is shared
    assert [p.sources for p in summary.pieces if p.kind == "value"] == [(first,), (second,)]
    branch = next(n for n in nodes if n.kind == "branch")
    merge = next(n for n in nodes if n.kind == "merge")
    assert merge.parent is branch and branch.arms == ("yes", "no")
    assert [label for _, label in merge.joins] == ["", "no"]  # the arm that adds nothing
    assert nodes[-1] is merge and merge.spine


def test_hostile_text_stays_text(stages: dict[str, Module]) -> None:
    for module in stages.values():
        drawing = svg(module)
        root = ElementTree.fromstring(drawing.encode())
        assert {e.tag.removeprefix(NS) for e in root.iter()} <= {
            "svg", "g", "title", "style", "rect", "text", "path", "circle"}
        titles = [e.text or "" for e in root.iter(NS + "title")]
        assert any("<script>alert(1)</script>&amp;]]>" in t for t in titles)
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ufffe\ud800-\udfff]", drawing)


def test_needs_nothing_from_elsewhere(stages: dict[str, Module]) -> None:
    drawing = svg(stages["prompt"])
    without = drawing.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|url\(|@import|href|<image|<use\b", without)


def test_titles_name_the_place(stages: dict[str, Module]) -> None:
    titles = [e.text or "" for e in ElementTree.fromstring(svg(stages["prompt"])).iter(
        NS + "title")]
    line = everything.fn.__code__.co_firstlineno + 5
    assert any("gen tip" in t and f"test_svg.py:{line}:" in t for t in titles)


def test_the_legend_is_inside() -> None:
    @sgl.program
    def small(s):
        s += sgl.gen("x", max_tokens=1)

    root = ElementTree.fromstring(svg(small.compile().stages["prompt"]))
    last = next(e for e in root.iter(f"{NS}text") if e.text == "host call")
    assert float(last.get("x", "")) + 5.5 * len("host call") <= float(root.get("width", ""))


def test_bars_grow_with_their_text() -> None:
    def width(n: int) -> float:
        @sgl.program
        def f(s):
            s += "x" * n + sgl.gen("a")

        module = f.compile().stages["prompt"]
        bar = next(e for e in ElementTree.fromstring(svg(module)).iter(NS + "rect")
                   if e.get("class") == "constant")
        return float(bar.get("width", 0))

    widths = [width(n) for n in (1, 5, 20, 100, 1000, 10_000)]
    assert widths == sorted(set(widths)) and widths[-1] < 500


def _check(module: Module) -> None:
    drawing = svg(module)
    root = ElementTree.fromstring(drawing.encode())
    wide, high = float(root.get("width", 0)), float(root.get("height", 0))
    for shape in root.iter(NS + "rect"):
        if shape.get("x"):
            assert 0 <= float(shape.get("x", 0)) <= wide and 0 <= float(shape.get("y", 0)) <= high
    assert svg(module) == drawing
    for program in module.programs.values():
        nodes = picture(program)
        placed = layout(nodes, dict.fromkeys(nodes, 50.0))
        assert set(placed) == set(nodes)
        for n in nodes:
            for before in (n.parent, *(j for j, _ in n.joins), *n.sources):
                assert before is None or placed[before].right < placed[n].left
        for a, b in itertools.combinations(placed.values(), 2):
            assert a.row != b.row or a.right < b.left or b.right < a.left


@given(modules)
def test_any_module(module: Module) -> None:
    """Modules over all operations, well formed but senseless."""
    _check(module)


@pytest.mark.parametrize("seed", range(20))
def test_programs_as_traced(seed: int) -> None:
    _check(random_module(Random(seed)))


def test_text_after_a_joined_child_is_a_box_of_its_own() -> None:
    @sgl.program
    def join(s: Any) -> None:
        child = s.fork(1)
        child[0] += "a"
        child[0] += "b"
        child.join("concate_and_append")
        child[0] += "c"
        s += sgl.gen("x") + child[0].text()

    for stage, module in join.compile().stages.items():
        _check(module)
        if stage == "traced":
            assert [[p.text for p in n.pieces] for n in boxes(module) if n.kind == "text"][:2] == [
                ["a", "b"], ["c"]]


def test_every_program_of_a_module(stages: dict[str, Module]) -> None:
    @sgl.program
    def other(s: Any) -> None:
        s += sgl.gen("b")

    module = Module([*stages["prompt"].programs.values(),
                     *other.compile().stages["prompt"].programs.values()])
    shown = texts(svg(module))
    assert "everything(topic)" in shown and "other()" in shown
    assert texts(svg(next(iter(module.programs.values())))).count("other()") == 0
