"""The functions of steps without effect, by operation: what `plan_compiler.py` gives its steps."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from sglc.ir import compute
from sglc.ir.module import Op
from sglc.runtime.vision.opening import file_of
from sglc.tokens.images import image_text, place_image
from sglc.tokens.prompt import Prompt
from sglc.tokens.text_prompt import FileOfImage, TextPrompt
from sglc.tokens.tokenizer import Encoded


def _extend(prompt: Prompt, piece: Any) -> Prompt:
    return prompt.append_encoded(piece) if isinstance(piece, Encoded) else prompt.append(piece)


def _ids(op: Op) -> Encoded:
    a = op.attrs
    return Encoded(a["text"], array("q", a["ids"]), a["held"], a.get("after", ""))


def _compute(fn: str) -> Callable[..., Any]:
    python = compute.function(fn)
    return lambda *values: python(*values)


def picture(op: Op, template: Any) -> Callable[..., Any]:
    """`prompt.image` where a model takes text: with what its template has around an image."""
    before, mark, after = image_text(template)
    if "text" in op.attrs:
        before, mark, after = "", op.attrs["text"], ""
    return lambda prompt, source: prompt.append(before).image(
        FileOfImage(file_of(source)), mark).append(after)


# op name -> (op, tokenizer) -> function of the operands' values
PURE: dict[str, Callable[[Op, Any], Callable[..., Any]]] = {
    "kv.root": lambda op, tok: lambda: Prompt.empty(tok),
    "kv.ids": lambda op, tok: lambda: _ids(op),
    "kv.extend": lambda op, tok: _extend,
    "kv.special": lambda op, tok: (lambda prompt, i=op.attrs["id"]: prompt.special(i)),
    "kv.image": lambda op, tok: lambda prompt, source: prompt.image(
        place_image(tok, source), op.attrs["text"]),
    "kv.item": lambda op, tok: lambda prompts, number: prompts[number],
    "kv.concat": lambda op, tok: lambda parent, child, base: parent.append_since(child, base),
    # The prompt stage runs as it is where a model takes text.
    "prompt.root": lambda op, tok: TextPrompt,
    "prompt.append": lambda op, tok: lambda prompt, text: prompt.append(text),
    "prompt.special": lambda op, tok: (lambda prompt, name=op.attrs["token"]: prompt.special(name)),
    "prompt.item": lambda op, tok: lambda prompts, number: prompts[number],
    "prompt.concat": lambda op, tok: lambda parent, child, base: parent.append_since(child, base),
    "prompt.text": lambda op, tok: lambda prompt: prompt.text(),
    "prompt.span": lambda op, tok: lambda begin, end: end.text_since(begin),
    "prompt.format": lambda op, tok: (
        lambda *values, parts=op.attrs["parts"]: compute.run_format(parts, values)),
    "prompt.compute": lambda op, tok: _compute(op.attrs["fn"]),
    "prompt.list": lambda op, tok: lambda *values: list(values),
}
