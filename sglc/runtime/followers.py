"""Whether another gen comes after a gen on the same text: what a call that runs ahead is for.

Knows the prompt dialect only.
"""

from __future__ import annotations

from sglc.ir.module import Program, Value

_READS = frozenset(("prompt.return", "prompt.text", "prompt.span", "prompt.message",
                    "prompt.host", "prompt.read"))
_ROLES = frozenset(("prompt.role_begin", "prompt.role_end"))
_GROWS = frozenset(("prompt.append", "prompt.select", *_ROLES))
_UNKNOWN = ("prompt.break", "prompt.check")  # the trace may go on in another way there


def is_followed(prompt: Value, program: Program, messages: bool) -> bool:
    """Whether a gen may go on from this prompt with no more than text between them.

    messages: the ends of chat messages are no text.  True where that is not known.
    """
    if any(op.name in _UNKNOWN for op in program.walk()):
        return True
    todo = [prompt]
    while todo:
        for use in todo.pop().uses:
            if use.name in _READS or (messages and use.name in _ROLES):
                continue
            if use.name not in _GROWS:
                return True
            todo.append(use.results[0])
    return False
