from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.sources.id_set import IdSet, RepeatedNames, UserIds


@given(st.lists(st.text(max_size=6)))
def test_like_a_set(names: list[str]) -> None:
    ours, reference = IdSet(), set[str]()
    for name in names:
        assert ours.add(name) == (name not in reference)
        reference.add(name)
    assert len(ours) == len(reference)


def test_grows_and_stays_small() -> None:
    ids = IdSet()
    for i in range(50_000):
        assert ids.add(f"s3://bucket/{i}.jpg")
    assert not any(ids.add(f"s3://bucket/{i}.jpg") for i in range(0, 50_000, 7))
    assert len(ids._table) * 8 / len(ids) < 25


def test_repeats_are_numbered() -> None:
    names = RepeatedNames()
    assert [names.name(n) for n in "abaab"] == ["a", "b", "a~2", "a~3", "b~2"]


def test_given_ids_number_other_images_but_not_the_same() -> None:
    ids = UserIds()
    assert ids.name("7", "x.jpg") == "7"
    assert ids.name("7", "y.jpg") == "7~2"
    assert ids.name("7", "x.jpg") == "7"
