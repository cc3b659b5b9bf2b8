"""The viewer's page: complete without scripts, self-contained, and nothing in it can act."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sglc.errors import SglcError
from sglc.lang.loading import load_programs
from sglc.lang.viewing import history, subject
from sglc.viz.html import document
from sglc.viz.picture import edges, picture
from tests.viz.programs import HOSTILE, calls, essays, hostile, shared


class Page(HTMLParser):
    """A page's elements, with attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(document(subject(hostile.compile(), batch=[{"text": "x"}, {"text": "y"}])))


@pytest.fixture(scope="module")
def compiled() -> Any:
    return essays.compile()


def test_nothing_that_a_program_says_can_act(page: Page) -> None:
    scripts = page.all("script")
    assert [s.get("type") for s in scripts] == ["application/json", None]
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag not in ("iframe", "object", "embed", "link", "img", "base", "form")
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    written = "".join(t for ts in page.texts.values() for t in ts)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", written)
    assert "<script>document.title='owned'" in written  # as text


def test_the_policy_allows_this_script_and_no_request(page: Page) -> None:
    policy = next(m["content"] for m in page.all("meta")
                  if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none';")
    for tag, index in (("script", 1), ("style", 0)):
        content = page.texts[tag][index] if tag == "style" else page.texts[tag][-1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert len(page.all("style")) == 1 and not any("style" in a for _, a in page.elements)


def test_the_data_is_json_and_the_texts_are_there(page: Page) -> None:
    written = page.texts["script"][0]
    assert "<" not in written and "&" not in written
    data = json.loads(written)
    assert [s["key"] for s in data["source"]["stages"]] == ["traced", "prompt", "kv", "plan"]
    shown = json.dumps(data["graph"]["nodes"])
    assert "onerror" in shown and "</script>" in shown


def test_complete_without_scripts(compiled: Any) -> None:
    """Every page's content is in the markup: boxes, source, IR, passes, automaton, figures."""
    found = Page(document(subject(compiled, batch=[{"essay": "e" * n} for n in range(3)])))
    ids = {a["id"] for _, a in found.elements if "id" in a}
    assert {"graph", "source", "passes", "plan", "grammar", "cost"} <= ids
    assert [a["href"] for a in found.all("a")] == [
        "#graph", "#source", "#passes", "#plan", "#grammar", "#cost"]
    text = "".join(t for tag, ts in found.texts.items() if tag not in ("script", "style")
                   for t in ts)
    for words in ("You judge essays.", "gen judgment", "×48", "program @essays", "hoist-prefixes",
                  "forks = s.fork(48)", "Grade:␣", "KV peak", "KV held, predicted", "3 rows",
                  "recorded rewrites"):
        assert words in text, words


def test_the_graph_has_the_ir_s_calls_and_the_picture_s_lines(compiled: Any) -> None:
    module = compiled.stages["plan"]
    found = Page(document(subject(compiled)))
    nodes = [n for p in module.programs.values() for n in picture(p)]
    shapes = [a for a in found.all("g") if "data-node" in a]
    numbers = [int(a["data-node"] or 0) for a in shapes]
    folded = len(shapes) - len(nodes)
    assert numbers[folded:] == list(range(len(nodes))) and 0 < folded < 12
    wanted = {k: n for k, n in calls(module).items() if n}
    kinds = [a["data-kind"] for a in shapes]
    assert {k: kinds[folded:].count(k) for k in wanted} == wanted
    assert {k: sum(int(a["data-repeats"] or 0) for a in shapes[:folded] if a["data-kind"] == k)
            for k in wanted} == wanted
    lines = [a["data-edge"] for a in found.all("path") if "data-edge" in a]
    drawn = [e.kind for e in edges(nodes)]
    for kind in ("prompt", "join", "use"):
        assert lines.count(kind) >= drawn.count(kind)
    assert lines[-len(drawn):] == drawn


def test_history_is_the_pipeline_s(compiled: Any) -> None:
    before, steps = history(compiled)
    assert [s.record.name for s in steps] == [r.name for r in compiled.records]
    assert [s.record.ops for s in steps] == [r.ops for r in compiled.records]
    assert sum(len(s.rewrites) for s in steps) > 40  # 48 forks begin alike
    assert "prompt.fork" in before and "prompt.fork" not in steps[0].text
    assert {r.rule for r in steps[0].rewrites} == {"fork"}


def test_viz_writes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compiled = shared.compile()
    assert compiled.viz() == Path("shared.html")
    written = (tmp_path / "shared.html").read_text(encoding="utf-8")
    assert written.startswith("<!DOCTYPE html>") and "</html>" in written
    other = compiled.viz(tmp_path / "a.html", batch=[{"q": "x"}])
    assert "KV held, predicted" in other.read_text(encoding="utf-8")
    with pytest.raises(SglcError, match="cannot be written"):
        compiled.viz(tmp_path / "no" / "a.html")


def test_a_program_that_was_not_captured_has_a_page_too() -> None:
    import sglc as sgl

    @sgl.program
    def odd(s: Any) -> None:
        exec("s += 'a'")  # the eager interpreter runs it
        s += sgl.gen("a")

    compiled = odd.compile()
    found = Page(document(subject(compiled)))
    assert not compiled.stages
    text = "".join(t for ts in found.texts.values() for t in ts)
    assert compiled.breaks[0].code in text


def test_hostile_text_is_there_to_be_read(page: Page) -> None:
    data = json.loads(page.texts["script"][0])
    start = HOSTILE[:40]
    assert any(start in p["text"] for n in data["graph"]["nodes"] for p in n["pieces"])


def test_a_backend_that_takes_text_has_no_tokens_to_show() -> None:
    from sglc.tokens.bytes import ByteTokenizer
    from sglc.tokens.templates import for_tokenizer

    class Remote:
        tokenizer = None
        template = for_tokenizer(ByteTokenizer())

    compiled = shared.compile(backend=Remote(), q="x")
    assert set(compiled.stages) == {"traced", "prompt"}
    found = Page(document(subject(compiled, batch=[{"q": "x"}])))
    text = "".join(t for tag, ts in found.texts.items() if tag not in ("script", "style")
                   for t in ts)
    assert "tokens: none" in text and "there are no tokens to count" in text
    assert set(compiled._repr_mimebundle_()) >= {"text/html", "image/svg+xml"}


def test_the_plan_is_of_the_arguments_that_it_was_compiled_for(tmp_path: Path) -> None:
    without, named, placed = (
        c.viz(tmp_path / f"{i}.html").read_text(encoding="utf-8") for i, c in enumerate((
            essays.compile(), essays.compile(essay="An essay."), essays.compile("An essay."))))
    assert "A plan belongs to a batch" in without and "What a batch costs" in without
    for page in (named, placed):
        assert "A plan belongs to a batch" not in page and "gen judgment ×48" in page


def test_what_a_line_writes_several_times_is_one_row_of_the_costs() -> None:
    page = document(subject(essays.compile(essay="x")))
    costs = page[page.index("Where the constant tokens are"):page.index("<script")]
    assert costs.count("Aspect ") == 1 and "×48" in costs


def test_long_lists_of_texts_say_what_they_leave_out(tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text("import sglc as sgl\n\n\n@sgl.program\ndef long(s):\n" + "".join(
        f"    s += 'Line {i}' + sgl.gen('a', max_tokens=2)\n" for i in range(25)))
    page = document(subject(load_programs(str(script)).programs["long"].compile()))
    costs = page[page.index("Where the constant tokens are"):page.index("<script")]
    assert costs.count("Line ") == 20 and "and 5 more of 30 tokens in all" in costs
