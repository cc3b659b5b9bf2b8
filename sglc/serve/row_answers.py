"""What a row of a posted program came to, as JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglc.backends.wire import NotPlain, encode
from sglc.errors import SglcError
from sglc.runtime.executor import Instance
from sglc.runtime.run_outputs import Failed
from sglc.serve.problems import Problem


def row_answer(instance: Instance) -> dict[str, Any]:
    """One row's variables, text, messages and error as JSON data.  names: of all its variables,
    also of those that failed, which have no value."""
    outputs = instance.outputs
    error = outputs.failure()
    names = outputs.names()
    out: dict[str, Any] = {"row": instance.row, "error": None, "names": list(map(encode, names))}
    try:
        out["variables"] = [[encode(name), encode(outputs.values[name])] for name in names
                            if not _failed(outputs.values[name])]
        metas = {name: outputs.meta(name) for name in outputs.metas}
        out["metas"] = [[encode(name), encode(meta)] for name, meta in metas.items()
                        if meta is not None and not _failed(meta)]
        out["messages"] = [dict(m) for _, m in sorted(outputs.messages, key=lambda x: x[0])]
        prompt = outputs.prompt()
        if prompt is not None:
            out["text"] = prompt.text()
            out["token_ids"] = prompt.token_ids().tolist()
        if error is None and outputs.result is not None:
            out["returned"] = encode(outputs.result[1]) if len(outputs.result) > 1 else None
    except NotPlain as why:
        error = Problem(400, f"a result is not plain data: {why}", code="unsupported")
    if error is not None:
        out["error"] = _error(error)
    return out


def _failed(value: Any) -> bool:
    return isinstance(value, Failed)


def _error(error: BaseException) -> Mapping[str, Any]:
    """An error of a row: one of sglc's by its code, one of Python's by its class."""
    if isinstance(error, SglcError):
        return {"type": type(error).__name__, "code": error.diagnostic.code,
                "message": error.diagnostic.what}
    if isinstance(error, Problem):
        return {"type": "EngineError", "code": "SGLC503", "message": error.message}
    return {"type": type(error).__name__, "code": None, "message": str(error)[:2000]}
