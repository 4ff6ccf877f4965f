"""The index of image ids: order, collisions of half a hash, tags."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from textspot_ray.tables.ids import IdIndex, hash_ids, hash_tags

halves = st.integers(0, 3)  # few values: many pairs share their high half


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sets(st.tuples(halves, halves), max_size=6), max_size=8), st.randoms())
def test_it_finds_what_was_added_and_nothing_else(chunks, rng):
    index, ordinals = IdIndex(), {}
    for chunk in chunks:
        fresh = [pair for pair in chunk if pair not in ordinals]
        rng.shuffle(fresh)
        for pair in fresh:
            ordinals[pair] = len(ordinals)
        hi, lo = (np.array([p[i] for p in fresh], np.uint64) for i in (0, 1))
        index.add(hi, lo, np.arange(len(fresh), dtype=np.uint64))
    asked = [(hi, lo) for hi in range(5) for lo in range(5)] * 2
    hi, lo = (np.array([p[i] for p in asked], np.uint64) for i in (0, 1))
    assert index.find(hi, lo).tolist() == [ordinals.get(pair, -1) for pair in asked]
    assert len(index) == len(ordinals)


def test_tags_follow_their_ids():
    index = IdIndex()
    index.add(*hash_ids(["a", "b", "c"]), hash_tags(["t1", None, "t3"]))
    at = index.find(*hash_ids(["c", "b", "x"]))
    assert at.tolist() == [2, 1, -1]
    assert index.tags(at[:2]).tolist() == [hash_tags(["t3"])[0], 0]
    index.set_tags(at[1:2], hash_tags(["new"]))
    assert index.tags(at[:2]).tolist() == hash_tags(["t3", "new"]).tolist()


def test_names_that_are_no_utf8_have_hashes_of_their_own():
    hi, lo = hash_ids(["\udcff", "\udcfe", "%FF", b"\xff"])
    assert len(set(zip(hi.tolist(), lo.tolist(), strict=True))) == 3  # the last is the first
