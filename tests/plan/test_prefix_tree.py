"""Sums and unions over a prefix tree's paths, against going through each path."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from sglc.plan.prefix_tree import PrefixTree, above

SEQUENCES = st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=8)


@given(SEQUENCES, st.lists(st.integers(0, 7), max_size=4))
def test_lengths_and_unions_of_paths(sequences: list[list[int]], blocks: list[int]) -> None:
    tree = PrefixTree()
    places = [tree.extend(tree.root, array("q", ids)) for ids in sequences]
    for number in blocks:
        if number < len(places):
            places.append(tree.block(places[number], "block", 0.5, 3))
    lengths = tree.lengths(lambda node: node.most)
    assert set(lengths) == {tree.root, *tree.nodes()}
    for place in places:
        assert lengths[place] == sum(node.most for node in place.path())
    assert above(places) == {node for place in places for node in place.path()}
