"""The lower bound against sets of prefixes, counted one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sglc.plan.lower_bound import FinalSequence, LowerBound, lower_bound


def counted(sequences: list[FinalSequence]) -> LowerBound:
    """The definition, as sets."""
    prefixes: set[tuple[int, ...]] = set()
    written: set[tuple[int, ...]] = set()
    for s in sequences:
        for n in range(1, s.kv + 1):
            prefixes.add(tuple(s.ids[:n]))
            if n > s.prompt:
                written.add(tuple(s.ids[:n]))
    return LowerBound(len(prefixes - written), len(written), len(prefixes),
                      max([s.kv for s in sequences], default=0),
                      sum([min(s.prompt, s.kv) for s in sequences]))


@st.composite
def final_sequences(draw: st.DrawFn) -> list[FinalSequence]:
    out = []
    for ids in draw(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=8)):
        big = [70_000 * i for i in ids]
        kv = draw(st.integers(0, len(ids)))
        out.append(FinalSequence(big, kv, draw(st.integers(0, len(ids)))))
    return out


@given(final_sequences())
def test_is_the_definition(sequences: list[FinalSequence]) -> None:
    assert lower_bound(sequences) == counted(sequences)


def test_what_decoding_wrote_is_no_prefill() -> None:
    first = FinalSequence([1, 2, 3, 4], 3, 2)  # 3 was decoded and read, 4 decoded and not read
    later = FinalSequence([1, 2, 3, 4, 5, 6], 5, 5)
    assert lower_bound([first]) == LowerBound(2, 1, 3, 3, 2)
    assert lower_bound([first, later]) == LowerBound(4, 1, 5, 5, 7)


def test_long_sequences() -> None:
    trunk = list(range(5000))
    rows = [FinalSequence([*trunk, 7, i], 5002, 5002) for i in range(300)]
    assert lower_bound(rows).prefill == 5001 + 300
