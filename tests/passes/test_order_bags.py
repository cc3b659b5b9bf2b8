"""order-bags: what it makes of a module, and that it runs only where quality is all that counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglc import ir
from sglc.errors import LanguageError
from sglc.ir.bags import bag_text, ordered, text_counts
from sglc.passes import PassManager
from tests.filecheck import check

SOURCE = """
program @main(%a: !text) {
  %p0 = prompt.root
  %p1 = prompt.bag %p0, "; ", "one", %a
  %p2 = prompt.bag %p1, "; ", "alone"
  prompt.return %p2
}
"""


def test_golden() -> None:
    after = PassManager("order-bags", level=3).run(ir.parse(SOURCE))
    text = ir.print(after)
    assert ir.parse(text) == after
    check(text, """
// CHECK: [[ROOT:%p[0-9]+]] = prompt.root
// CHECK-NEXT: [[BATCH:%[a-z0-9]+]]: !json = prompt.batch
// CHECK-NEXT: [[TEXT:%[a-z0-9]+]]: !text = prompt.compute [[BATCH]], "; ", "one", %a
// CHECK-NEXT: [[P:%p[0-9]+]] = prompt.append [[ROOT]], [[TEXT]]
// CHECK-NEXT: prompt.bag [[P]], "; ", "alone"
""")


def test_it_is_refused_below_level_3() -> None:
    with pytest.raises(LanguageError) as caught:
        PassManager("order-bags", level=2)
    assert caught.value.code == "SGLC008"


texts = st.text("ab", max_size=2)


@given(st.lists(texts, max_size=6), st.dictionaries(texts, st.integers(0, 3)))
def test_the_rule(parts: list[str], counts: dict[str, int]) -> None:
    """Any order of the same parts becomes one order, the popular ones first."""
    out = ordered(parts, counts)
    assert sorted(out) == sorted(parts)
    assert out == ordered(parts[::-1], counts)
    found = [counts.get(part, 0) for part in out]
    assert found == sorted(found, reverse=True)
    assert bag_text(counts, "|", *parts) == "|".join(out)


def test_counts_are_of_rows() -> None:
    rows = [{"docs": ["x", "x", ("y", {"k": "z"})], "n": 3}, {"docs": "x"}, {"docs": None}]
    assert text_counts(rows) == {"x": 2, "y": 1, "z": 1}
