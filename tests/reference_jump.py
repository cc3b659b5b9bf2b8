"""The canonical rule of constrained decoding, by trying every token: what `reference_calls.py`
binds itself to.  Slow and plain; shares nothing with the engine but the constraint's protocol."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import Any


def dictated(tok: Any, constraint: Any, state: Any, out: list[int]) -> list[int]:
    """The tokens that must come after `out`, which led to `state`."""
    pieces = tok.byte_table
    words = [pieces[i] for i in out]
    # Look back on at least 32 bytes, from where a token and a character begin.
    cut = next((n for n in range(len(out), 0, -1)
                if len(b"".join(words[n:])) >= 32 
                and not b"\x80" <= words[n][:1] < b"\xc0"), 0)
    before, forced = b"".join(words[cut:]), constraint.jump(state)
    try:
        whole = (before + forced).decode("utf-8")
    except UnicodeDecodeError as bad:
        whole = (before + forced)[:bad.start].decode("utf-8")
        if bad.reason != "unexpected end of data":
            return []
    forced = whole.encode()[len(before):]
    ids = tok.encode(whole)
    ends = [len(tok.decode_bytes(ids[:n])) for n in range(len(ids) + 1)]
    if not forced or tok.decode_bytes(ids) != whole.encode() or len(before) not in ends:
        return []
    new = ids[ends.index(len(before)):]
    after = state
    for token in new:
        after = None if after is None else constraint.advance(after, token)
    if after is None:
        return []
    for n in range(len(new), 0, -1):  # the most tokens that nothing could straddle
        held = tok.decode_bytes(new[:n])
        if not any(straddled(tok, constraint, after, forced[i:]) for i in range(len(held))):
            return new[:n]
    return []


def straddled(tok: Any, constraint: Any, after: Any, tail: bytes) -> bool:
    """Whether some token is `tail` and more, and `after` takes the rest byte by byte."""
    table, letters = tables(tok)
    for i in range(bisect_left(table, tail), len(table)):
        if not table[i].startswith(tail):
            return False
        state = after if len(table[i]) > len(tail) else None
        for byte in table[i][len(tail):]:
            state = None if state is None or byte not in letters else constraint.advance(
                state, letters[byte])
        if state is not None:
            return True
    return False


@lru_cache(maxsize=8)
def tables(tok: Any) -> tuple[list[bytes], dict[int, int]]:
    """The tokens' bytes, sorted, and the token of each single byte."""
    plain = [(piece, i) for i, piece in enumerate(tok.byte_table)
             if piece and i not in tok.special_ids | tok.eos_ids]
    return sorted(p for p, _ in plain), {p[0]: i for p, i in reversed(plain) if len(p) == 1}
