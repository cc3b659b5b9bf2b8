"""Items that a value of the run chooses are the container's own: what is done to them is seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import sglc as sgl

CASES: list[Callable[..., Any]] = []


def case(fn: Callable[..., Any]) -> Callable[..., Any]:
    CASES.append(fn)
    return fn


@case
def lists_by_choice(s: Any, q: str) -> Any:
    groups: dict[str, list[int]] = {"x": [], "y": []}
    s += q
    for i in range(3):
        s += sgl.select("c", ["x", "y"])
        groups[s["c"]].append(i)
    s += str(groups) + str(groups[s["c"]] is groups["x"])
    return groups


@case
def dicts_by_choice(s: Any, q: str) -> Any:
    found: dict[str, dict[str, Any]] = {"x": {"n": 0}, "y": {"n": 0}}
    s += q
    for _ in range(2):
        s += sgl.select("c", ["x", "y"])
        found.get(s["c"], {})["n"] += 1
        found[s["c"]]["last"] = s["c"]
    s += str(found["x"]) + str(found["y"]["n"])
    return found


@case
def rows_by_number(s: Any, q: str) -> Any:
    table = [[0] * 2 for _ in range(2)]
    s += q + sgl.gen("n", regex="[01]", max_tokens=2)
    n = int(s["n"])
    table[n][1 - n] = 5
    table[n][0] += 1
    row = table[n]
    row.append(7)
    s += str(table) + str(row is table[n])
    return table


@case
def the_greatest(s: Any, q: str) -> Any:
    s += q + sgl.gen("t", max_tokens=1)
    pairs = [(s["t"], [0])]
    s += sgl.gen("t", max_tokens=1)
    pairs.append((s["t"], [1]))
    text, items = max(pairs)
    items.append(9)
    a, b = [s["t"]], [q]
    min(a, b).append("least")
    found = [{"t": s["t"]}, {"t": q}]
    sorted(found, key=lambda f: f["t"])[0]["first"] = True
    s += text + str(pairs) + str(a) + str(b) + str(found)
    return pairs


@case
def changed_later(s: Any, q: str) -> Any:
    plans = {"x": ["a"], "y": ["b"]}
    s += q + sgl.select("c", list(plans))
    plan = plans[s["c"]]
    plans["x"].append("later")
    plans["y"] += ["too"]
    s += str(plan)
    return plan


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_chosen(fn: Callable[..., Any], model: Any) -> None:
    program = sgl.program(fn)
    rows = [(c,) for c in "abcdef"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = [[(s.text(), s.ret_value) for s in program.run_batch(
            rows, backend=model, seed=5, max_new_tokens=2, mode=mode)]
            for mode in ("eager", "compiled", "compiled")]
    assert seen[1] == seen[0] and seen[2] == seen[0]
    assert len({text for text, _ in seen[0]}) > 1
