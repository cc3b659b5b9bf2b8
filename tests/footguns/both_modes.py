"""A program in both modes: what came of its runs, and that they agree."""

from __future__ import annotations

import warnings
from typing import Any


def outcome(state: Any) -> Any:
    error = state.error()
    if error is not None:
        return type(error)
    return (state.text(), state.token_ids(), state.messages(), state.ret_value,
            {n: state[n] for n in state.variable_names()})


def same(program: Any, model: Any, *calls: tuple[Any, ...], whole: bool | None = None) -> list[Any]:
    """Run each call in both modes, twice compiled; they must agree.  whole: no graph break."""
    eager = [outcome(program.run(*c, backend=model, mode="eager", seed=7)) for c in calls]
    with warnings.catch_warnings():
        warnings.simplefilter("error" if whole else "ignore")
        for _ in range(2):
            compiled = [outcome(program.run(*c, backend=model, seed=7)) for c in calls]
            assert compiled == eager
    if whole is not None:
        assert all((program.compile(*c).graph_breaks == 0) == whole for c in calls)
    return eager
