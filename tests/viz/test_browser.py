"""The viewer in a real browser: no error, no request, all there is in the IR, and it works.

Two programs in the default run, ten of the corpus and three more in the slow one.  Pictures are
left in the folder that $SGLC_PICTURES names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sglc.lang.compiled import Compiled
from sglc.viz.picture import edges, picture
from tests.viz.browser import Browser, browser, find
from tests.viz.programs import calls, corpus, essays, hostile, operand_uses, thousand

pytestmark = pytest.mark.skipif(
    find() is None, reason="no Chromium is installed (apt-get install chromium)")
TABS = ("graph", "source", "passes", "plan", "grammar", "cost")
FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as found:
        yield found


def luminance(chrome: Browser) -> float:
    """How light the page's background is, from 0 to 255."""
    rgb: str = chrome.js("getComputedStyle(document.body).backgroundColor")
    return sum(map(float, rgb[4:-1].split(","))) / 3


def check(chrome: Browser, compiled: Compiled, path: Path, dark: bool = False) -> None:
    """Everything that must hold of any page."""
    name = compiled.program.name
    compiled.viz(path)
    chrome.open(path, dark=dark)
    module = compiled.stages.get("plan") or compiled.stages["prompt"]
    nodes = [n for p in module.programs.values() for n in picture(p)]
    drawing = "#graph-all"
    assert chrome.count(f"{drawing} .node") == len(nodes)
    for kind, count in calls(module).items():
        assert chrome.count(f"{drawing} .node[data-kind={kind}]") == count, (name, kind)
    drawn = [e.kind for e in edges(nodes)]
    for edge in ("prompt", "join", "use"):
        assert chrome.count(f"{drawing} [data-edge={edge}]") == drawn.count(edge)
    assert (luminance(chrome) < 80) is dark
    for tab in TABS:
        chrome.click(f"[data-tab={tab}]")
        assert chrome.js("[...document.querySelectorAll('.page.shown')].map(p => p.id)") == [tab]
        assert chrome.js(f"document.querySelector('#{tab}').getBoundingClientRect().height") > 20
        if folder := os.environ.get("SGLC_PICTURES"):
            chrome.js(FRAME)
            chrome.picture(Path(folder) / f"{name}-{tab}{'-dark' if dark else ''}.png")
    _stages(chrome, compiled)
    _slider(chrome, compiled)
    assert chrome.errors == [] and chrome.requests == [] and chrome.dialogs == []
    assert chrome.js("document.title").startswith(name)


def _stages(chrome: Browser, compiled: Compiled) -> None:
    """Each operation is a line of IR, each use of a value a mark in it."""
    chrome.click("[data-tab=source]")
    for index, module in enumerate(compiled.stages.values()):
        chrome.js(f"""(() => {{ const stage = document.querySelector('#ir select');
            stage.value = {index}; stage.dispatchEvent(new Event('change')); }})()""")
        assert chrome.count("#ir .line[data-op]") == sum(1 for _ in module.walk())
        assert chrome.count("#ir .line[data-op] .value.use") == operand_uses(module)


def _slider(chrome: Browser, compiled: Compiled) -> None:
    """From end to end of the slider, each pass comes up once, in order."""
    chrome.click("[data-tab=passes]")
    stops = chrome.js("Number(document.querySelector('#slider input').max) + 1")
    seen = chrome.js("""(() => {
        const range = document.querySelector('#slider input'), seen = [];
        const step = Math.max(1, Math.floor(Number(range.max) / 20));
        for (let i = 0; i <= Number(range.max); i++) {
            if (i % step && i < Number(range.max)) continue;
            range.value = i; range.dispatchEvent(new Event('input'));
            seen.push(document.querySelector('#slider h3').textContent);
        }
        return [...new Set(seen)]; })()""")
    names = [f"{i}. {r.name}" for i, r in enumerate(compiled.records, 1)]
    titles = [s.partition("{")[0] for s in seen]
    assert titles == (names if stops <= 20 else [n for n in names if n in titles])
    assert len(titles) > 1


def test_what_is_wrong_would_be_seen(chrome: Browser, tmp_path: Path) -> None:
    path = tmp_path / "wrong.html"
    path.write_text("<img src=x.png><script>console.error('one'); missing()</script>")
    chrome.open(path)
    chrome.js(FRAME)
    assert any("one" in e for e in chrome.errors) and any("missing" in e for e in chrome.errors)
    assert any(r.endswith("x.png") for r in chrome.requests)


def test_a_page_works(chrome: Browser, tmp_path: Path) -> None:
    compiled = essays.compile(essay="An essay.")
    check(chrome, compiled, tmp_path / "essays.html")
    chrome.click("[data-tab=graph]")
    # Repeats are folded, until one asks for all.
    assert chrome.js("document.querySelector('#graph-all').hidden") is True
    chrome.click(".tools input[type=checkbox]")
    assert chrome.js("document.querySelector('#graph-all').hidden") is False
    chrome.click(".tools input[type=checkbox]")
    # What is known of a box, from box to box with the keys.
    chrome.js("document.querySelector('.canvas').focus()")
    chrome.key("ArrowRight")
    first = chrome.js("document.querySelector('.detail').innerText")
    assert "You judge essays." in first and "KV held until" in first and "test" not in first[:4]
    chrome.key("ArrowRight")
    second = chrome.js("document.querySelector('.detail h3').innerText")
    assert second != first.splitlines()[0] and chrome.count(".node.chosen") == 1
    chrome.key("ArrowLeft")
    assert chrome.js("document.querySelector('.detail').innerText") == first
    chrome.key("Escape")
    assert chrome.count(".detail:not([hidden])") == 0
    # Keys and the mouse for the size and the part that is seen.
    wide = "document.querySelector('#graph-folded').getBoundingClientRect().width"
    before = chrome.js(wide)
    chrome.key("+")
    assert abs(chrome.js(wide) / before - 1.25) < 0.01
    chrome.drag(700, 240, 500, 240)
    assert chrome.js("document.querySelector('.canvas').scrollLeft") == 200
    chrome.key("0")
    assert chrome.js(wide) <= 1360
    # Keys for tabs and search.
    chrome.key("3")
    assert chrome.js("document.querySelector('.page.shown').id") == "passes"
    chrome.key("/")
    assert chrome.js("document.activeElement.type") == "search"
    for c in "grade":
        chrome.key(c)
    assert "found" in chrome.js("document.querySelector('.found').textContent")
    assert chrome.count(".node.hit") > 0
    chrome.key("Enter")
    assert "grade" in chrome.js("document.querySelector('.detail').innerText").lower()
    # Source and IR light each other.
    chrome.click("[data-tab=source]")
    lit = chrome.js("""(() => {
        const line = document.querySelector('#ir .line[data-place]');
        line.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
        return [...document.querySelectorAll('.source .line.lit code')].map(c => c.textContent);
        })()""")
    assert len(lit) == 1 and "s += sgl.system" in lit[0]
    assert chrome.errors == [] and chrome.requests == []


FRAMES = """(async () => {
    const frame = () => new Promise(requestAnimationFrame);
    const canvas = document.querySelector('.canvas'), taken = [];
    for (let i = 0; i < 24; i++) {
        await frame();
        const start = performance.now();
        %s;
        await frame();
        await frame();
        taken.push(performance.now() - start);
    }
    return taken.sort((a, b) => a - b)[12]; })()"""


@pytest.mark.slow
def test_a_thousand_boxes_are_fluid(chrome: Browser, tmp_path: Path) -> None:
    """What one does to the picture is seen two frames later: at 60 a second, after 33 ms."""
    path = tmp_path / "thousand.html"
    thousand.compile().viz(path)
    chrome.open(path)
    acts = {"zoom": "canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: i < 12 ? 60 : -60, "
                    "ctrlKey: true, bubbles: true, cancelable: true}))",
            "move": "canvas.scrollTo({left: i * 400, behavior: 'instant'})",
            "choose": "canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"}
    taken = {name: chrome.js(FRAMES % act) for name, act in acts.items()}
    assert max(taken.values()) < 120, taken


def test_hostile_texts_do_nothing(chrome: Browser, tmp_path: Path) -> None:
    check(chrome, hostile.compile(text="</script><script>alert(5)</script>"),
          tmp_path / "hostile.html", dark=True)
    assert chrome.count("img") == 0 and chrome.count("script") == 2
    for number in range(chrome.count("#graph-all .node")):
        chrome.click("[data-tab=graph]")
        chrome.click(f"#graph-all .node[data-node='{number}']")
        assert chrome.count(".detail:not([hidden])") == 1
    assert chrome.count("img, .detail script, iframe") == 0
    assert chrome.errors == [] and chrome.dialogs == [] and chrome.requests == []


def test_without_scripts_everything_is_there(chrome: Browser, tmp_path: Path) -> None:
    path = tmp_path / "plain.html"
    essays.compile(essay="An essay.").viz(path)
    chrome.open(path, scripts=False)
    heights = chrome.js("[...document.querySelectorAll('.page')].map("
                        "p => p.getBoundingClientRect().height)")
    assert len(heights) == len(TABS) and min(heights) > 40
    assert chrome.count(".tools") == 0 and chrome.errors == []
    chrome.open(path)


@pytest.mark.slow
def test_the_corpus(chrome: Browser, tmp_path: Path) -> None:
    programs = corpus()
    assert len(programs) >= 12
    for i, (name, compiled) in enumerate(programs.items()):
        check(chrome, compiled, tmp_path / f"{name}.html", dark=bool(i % 2))
    thousand: Any = programs["thousand"]
    assert sum(len(picture(p)) for p in thousand.stages["plan"].programs.values()) >= 1000
