"""`sglc demo` says what happened: the figures it prints are those of the engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sglc import demo
from sglc.runtime.weights.fetch import fetch_default_model

ROW = r"^  {} +(\d+) +(\d+) +(\d+) +[\d.]+ s$"


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_default_model()
    capsys.readouterr()
    graph = tmp_path / "graph.svg"
    assert demo.main(graph) == 0
    said = capsys.readouterr().out

    assert "fetching" not in said
    assert re.search(r"assistant: .*\bParis\b", said)
    assert "0 graph breaks" in said and "hoist-prefixes" in said
    assert re.search(r"select +Europe", said)
    assert re.search(r"regex +1\d{3}$", said, re.M)
    assert "The four texts are equal." in said

    rows = {}
    for mode in ("eager", "compiled"):
        for cache in ("off", "on"):
            row = re.search(ROW.format(f"{mode}, radix cache {cache}"), said, re.M)
            assert row is not None, (mode, cache)
            rows[mode, cache] = tuple(map(int, row.groups()))
    totals = {computed + found for computed, found, _ in rows.values()}
    assert totals == {rows["eager", "off"][0]}  # every run asked for the same prompt tokens
    assert rows["eager", "off"][1] == 0
    assert len({generated for *_, generated in rows.values()}) == 1
    saved = rows["eager", "off"][0] - rows["compiled", "off"][0]
    assert saved > 0
    assert re.search(rf"The plan alone .*: {saved} saved", said)
    saved = rows["eager", "on"][0] - rows["compiled", "on"][0]
    assert re.search(rf"The plan with the cache .*: {saved} saved", said)

    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for (mode, cache), (computed, found, _) in rows.items():
        assert f"| {mode}, radix cache {cache} | {computed} | {found} |" in readme

    assert str(graph) in said
    root = ElementTree.fromstring(graph.read_text())
    labels = {e.text for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"gen capital", "gen tip", "select continent", "gen year"} <= labels


def test_a_loss_is_not_called_a_saving() -> None:
    def run(computed: int) -> Any:
        return demo.Run("x", "", 0.0, computed, 0, 0)

    assert demo.saved("A", run(100), run(75), "B").endswith("25 saved (25 %).")
    assert demo.saved("A", run(100), run(100), "B").endswith("0 saved.")
    assert demo.saved("A", run(100), run(110), "B").endswith("-10 saved.")
