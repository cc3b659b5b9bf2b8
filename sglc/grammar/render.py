"""Syntax tree -> regex text with every character set written out as code points.

The text means the same to any engine that knows `(?:...)`, `[...]`, `|`, `{m,n}` and `\\x{...}`
(as Rust's does), whatever its own idea of `\\w`.
"""

from __future__ import annotations

from sglc.grammar.syntax import Alternative, Anchor, Chars, Concat, Machine, Node, Words


def has_anchor(node: Node) -> bool:
    if isinstance(node, Concat):
        return any(has_anchor(p) for p in node.parts)
    if isinstance(node, Alternative):
        return any(has_anchor(o) for o in node.options)
    if isinstance(node, Anchor):
        return True
    if isinstance(node, Machine):
        return any(has_anchor(inner) for edges in node.edges for inner, _ in edges)
    return not isinstance(node, Chars | Words) and has_anchor(node.body)


def to_regex(node: Node) -> str:
    """The regex of a tree of at least one text, without anchors and machines."""
    if isinstance(node, Chars):
        ranges = (_code(lo) if lo == hi else f"{_code(lo)}-{_code(hi)}"
                  for lo, hi in node.charset.ranges)
        return f"[{''.join(ranges)}]"
    if isinstance(node, Words):
        return f"(?:{'|'.join(''.join(map(_literal, word)) for word in node.words)})"
    if isinstance(node, Concat):
        return "".join(to_regex(part) for part in node.parts)
    if isinstance(node, Alternative):
        return f"(?:{'|'.join(to_regex(option) for option in node.options)})"
    if isinstance(node, Anchor | Machine):
        raise ValueError(f"{type(node).__name__} cannot be written out")
    most = "" if node.most is None else node.most
    return f"(?:{to_regex(node.body)}){{{node.least},{most}}}"


def _literal(c: str) -> str:
    return c if c.isascii() and c.isalnum() else _code(ord(c))


def _code(code: int) -> str:
    return f"\\x{{{code:x}}}"
