"""Programs whose branches the model decides: a router that picks a tool, then whether to go on."""

from __future__ import annotations

from typing import Any

import sglc as sgl
from sglc.workloads.base import Size, Workload, fixed, questions, text

_TOOLS = ("calculator", "search", "calendar", "translator")


def _router(size: Size) -> Any:
    n = size.tokens
    rules = {tool: f".\nRules of the {tool}:" + text(size.shared, "router", tool)
             for tool in _TOOLS}

    @sgl.program
    def router(s, q):
        s += "Tools are " + ", ".join(_TOOLS) + ".\nQuestion:" + q + "\nThe best tool is the "
        s += sgl.select("tool", choices=list(_TOOLS))
        for tool, rule in rules.items():
            if s["tool"] == tool:
                s += rule + "\nInput:" + fixed("input", n)
        s += "\nIs this enough? " + sgl.select("enough", choices=["yes", "no"])
        if s["enough"] == "yes":
            s += ".\nThen the answer, in one sentence and without any doubt, is"
        else:
            s += ".\nThen say what is missing, and where it could be found:"
        s += fixed("answer", n // 2)

    return router


WORKLOADS = (
    Workload("router", "one of 4 tools with rules of its own, then whether that is enough",
             _router, questions, Size(8, 16, 8, 24), Size(256, 64, 32, 45)),
)
