from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.sources.identity import IdMap, RepeatedNames, Taken, id_problem


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=1))))
def test_like_a_dict_of_first_owners(pairs: list[tuple[str, str]]) -> None:
    ours, reference = IdMap(), dict[str, str]()
    for name, owner in pairs:
        if name not in reference:
            expected = Taken.NEW
            reference[name] = owner
        else:
            expected = Taken.SAME if reference[name] == owner else Taken.OTHER
        assert ours.take(name, owner) is expected
    assert len(ours) == len(reference)


def test_grows_and_stays_small() -> None:
    ids = IdMap()
    for i in range(50_000):
        assert ids.take(f"s3://bucket/{i}.jpg", str(i)) is Taken.NEW
    assert all(ids.take(f"s3://bucket/{i}.jpg", str(i)) is Taken.SAME for i in range(0, 50_000, 7))
    assert ids.take("s3://bucket/7.jpg", "8") is Taken.OTHER
    assert len(ids._keys) * 16 / len(ids) < 50


def test_repeats_are_numbered() -> None:
    names = RepeatedNames()
    assert [names.name(n) for n in "abaab"] == ["a", "b", "a~2", "a~3", "b~2"]


def test_ids_that_pages_and_gaps_have_are_no_ids_for_images() -> None:
    assert [id_problem(i) is None for i in ("a", "a~2", "a#b", "page=1", "a#page=x")] == [True] * 5
    assert all(id_problem(i) for i in ("a#page=1", "a#image=2", "a#~bytes=0-1", "x#~row=3"))
