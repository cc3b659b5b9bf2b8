"""Statements of a written program, and how they are laid out.

Knows Python's layout and that `s += a` twice is `s += a + b`; nothing of the IR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglc.ir.python_text import text_literal

WIDTH = 96


@dataclass(slots=True)
class Line:
    """Any statement of one line."""

    text: str


@dataclass(slots=True)
class Add:
    """`state += part`.  atomic: the part needs no parentheses in a sum.  literal: the text, if it
    is one.  role: of a message that the part opens or closes."""

    state: str
    part: str
    atomic: bool = True
    literal: str | None = None
    role: str = ""
    opens: bool = False


@dataclass(slots=True)
class Branch:
    """`if`, `elif`, `else`: tests (None for else) and what is done."""

    arms: list[tuple[str | None, list[Statement]]]


@dataclass(slots=True)
class With:
    """A `with` block."""

    what: str
    body: list[Statement]


Statement = Line | Add | Branch | With


def render(statements: Sequence[Statement], depth: int) -> list[str]:
    """The lines of a block, at this depth of indentation; at least one."""
    indent = "    " * depth
    out: list[str] = []
    index = 0
    while index < len(statements):
        statement = statements[index]
        if isinstance(statement, Branch):
            _branch(statement, depth, out)
            index += 1
        elif isinstance(statement, With):
            out.append(f"{indent}with {statement.what}:")
            out += render(statement.body, depth + 1)
            index += 1
        elif isinstance(statement, Line):
            out.append(indent + statement.text)
            index += 1
        else:
            taken = _message(statements, index, indent, out) or _sum(statements, index, indent, out)
            index += taken
    return out or [indent + "pass"]


def _branch(branch: Branch, depth: int, out: list[str]) -> None:
    indent = "    " * depth
    word = "if"
    arms = list(branch.arms)
    while arms:
        test, body = arms.pop(0)
        if test is None:
            if not body:
                return
            if len(body) == 1 and isinstance(body[0], Branch) and word == "elif":
                arms = list(body[0].arms)  # else: if -> elif
                continue
            out.append(f"{indent}else:")
        elif len(arms) == 1 and arms[0][0] is None and not body and arms[0][1]:
            test, body = f"not ({test})", arms.pop(0)[1]
            out.append(f"{indent}{word} {test}:")
        else:
            out.append(f"{indent}{word} {test}:")
        out += render(body, depth + 1)
        word = "elif"


def _sum(statements: Sequence[Statement], index: int, indent: str, out: list[str]) -> int:
    """Parts for one state in one line while they fit; how many statements that took."""
    first = statements[index]
    assert isinstance(first, Add)
    parts = [first]
    for more in statements[index + 1:]:
        # A text goes into the line of what follows it, up to a gen.
        if (first.role or not isinstance(more, Add) or more.state != first.state or more.role
                or parts[-1].part.startswith("sgl.")
                or len(f"{indent}{first.state} += {_terms([*parts, more])}") > WIDTH):
            break
        parts.append(more)
    line = f"{indent}{first.state} += {_terms(parts)}"
    if len(line) > WIDTH and len(parts) == 1 and first.literal is not None:
        out.append(f"{indent}{first.state} += (")
        out += [f"{indent}    {text_literal(piece)}" for piece in _pieces(first.literal)]
        out[-1] += ")"
    else:
        out.append(line)
    return len(parts)


def _terms(parts: Sequence[Add]) -> str:
    if len(parts) == 1:
        return parts[0].part
    return " + ".join([p.part if p.atomic else f"({p.part})" for p in parts])


def _message(statements: Sequence[Statement], index: int, indent: str, out: list[str]) -> int:
    """A whole chat message; how many statements that took (0: there is none here)."""
    first = statements[index]
    if not isinstance(first, Add) or not first.opens:
        return 0
    body: list[Statement] = []
    for statement in statements[index + 1:]:
        if not isinstance(statement, Add) or statement.state != first.state:
            return 0
        if statement.role:
            break
        body.append(statement)
    else:
        return 0
    if statement.role != first.role or statement.opens:
        return 0
    parts = [s for s in body if isinstance(s, Add)]
    line = f"{indent}{first.state} += sgl.{first.role}({_terms(parts)})"
    if parts and len(line) <= WIDTH:
        out.append(line)
    else:
        out.append(f"{indent}with {first.state}.{first.role}():")
        out += render(body, len(indent) // 4 + 1)
    return len(body) + 2


def _pieces(text: str) -> list[str]:
    """A text cut after its line breaks, and between words where lines are long."""
    out: list[str] = []
    for line in text.splitlines(keepends=True):
        while len(line) > 76:
            cut = line.rfind(" ", 40, 76) + 1 or 76
            out.append(line[:cut])
            line = line[cut:]
        out.append(line)
    return out
