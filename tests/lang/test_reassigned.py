"""Variables that are assigned again, and gens behind an `if` whose number is known at run time."""

from __future__ import annotations

from typing import Any

import pytest

import sglc as sgl


@sgl.program
def set_again(s: Any) -> None:
    s += "q" + sgl.gen("x", max_tokens=2)
    s["x"] = "lit"
    s += sgl.gen("y", max_tokens=2)
    s["y"] = "lit"
    s += sgl.gen("y", max_tokens=1)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_the_meta_of_a_gen_goes_with_its_value(mode: str) -> None:
    with sgl.HashModel() as model:
        state = set_again.run(backend=model, mode=mode)
        assert state["x"] == "lit" and state.get_meta_info("x") is None
        assert state.get_meta_info("y")["completion_tokens"] == 1


@sgl.program
def after_arms(s: Any, n: Any) -> None:
    s += "Q" + sgl.gen("y", max_tokens=1)
    for _ in range(n):
        s += sgl.gen("y", max_tokens=2)
        if s["y"] == "yes":
            s += "1"
        else:
            s += "no" + sgl.gen("x", max_tokens=2)
        s += "z"
    s += sgl.gen("w", max_tokens=3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_streams_behind_arms_with_gens(n: int) -> None:
    with sgl.HashModel() as model:
        state = after_arms.run(n, backend=model, seed=3, stream=True)
        assert "".join(state.text_iter()) == state.text()
        assert "".join(state.text_iter("w")) == state["w"]
