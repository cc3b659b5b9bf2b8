"""Words can be read on whatever they stand on, in both colour schemes (WCAG 2.1, level AA)."""

from __future__ import annotations

import re

import pytest

from sglc.viz.assets import asset

LEAST = 4.5
DARK = r"@media \(prefers-color-scheme: dark\) \{ \.sglc \{([^}]*)\} ?\}"
STANDS_ON = {
    "ink": "paper constant special gen select branch host shade mark added removed alt",
    "dim": "paper gen select branch host shade", "bold": "paper", "constant-line": "paper",
    "string": "paper shade mark added removed"}


def colours(dark: bool) -> dict[str, str]:
    css = asset("graph.css") + asset("viewer.css")
    blocks = re.findall(r"\.sglc \{([^}]*)\}", re.sub(DARK, "", css))
    blocks += re.findall(DARK, css) if dark else []
    return {name: value for block in blocks
            for name, value in re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block)}


def luminance(colour: str) -> float:
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4
                        for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_can_be_read(dark: bool) -> None:
    known = colours(dark)
    found = {(words, ground): round(contrast(known[words], known[ground]), 2)
             for words, grounds in STANDS_ON.items() for ground in grounds.split()}
    assert {pair: ratio for pair, ratio in found.items() if ratio < LEAST} == {}


def test_the_schemes_differ() -> None:
    light, dark = colours(False), colours(True)
    assert set(light) == set(dark)
    assert luminance(light["paper"]) > 0.9 > 0.1 > luminance(dark["paper"])
