from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from tests.support.archives import FAST, config
from textspot_ray.sources.identity import (
    RepeatedNames,
    canonical,
    canonical_base,
    encode_bytes,
    locate,
    member_id,
    member_text,
)
from textspot_ray.sources.listing import Lister

FILE_BYTES = st.binary(min_size=1, max_size=40).filter(lambda b: b"\0" not in b and b"/" not in b)


def test_readable_where_nothing_is_special() -> None:
    assert canonical("file", "/data/a-1/img_01.jpg") == "file:///data/a-1/img_01.jpg"
    assert canonical("s3", "bucket/a=1/x.tar") == "s3://bucket/a=1/x.tar"
    assert canonical("memory", "/x/y.png") == "memory://x/y.png"


def test_specials_are_encoded() -> None:
    path = os.fsdecode(b"/d/sp ace'\"\n#~%\xff\xc3\xa9.jpg")
    uri = canonical("file", path)
    assert uri == "file:///d/sp%20ace%27%22%0A%23%7E%25%FF%C3%A9.jpg"
    assert locate(uri) == ("file", path)


def test_urls_are_left_as_they_are_but_for_what_no_url_may_hold() -> None:
    url = "https://host/~me/a%20b.jpg?x=1&y=%2F"
    assert canonical("https", url) == url
    assert canonical("https", "https://h/a b.jpg#part") == "https://h/a%20b.jpg"
    assert locate(url) == ("https", url)


@given(FILE_BYTES)
def test_any_file_name_survives(raw: bytes) -> None:
    path = os.fsdecode(b"/dir/" + raw)
    uri = canonical("file", path)
    assert uri.isascii() and uri.isprintable() and " " not in uri
    assert locate(uri) == ("file", path)


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=30))
def test_any_object_key_survives(key: str) -> None:
    assert locate(canonical("s3", f"bucket/{key}")) == ("s3", f"bucket/{key}")


@given(st.lists(FILE_BYTES, min_size=1, max_size=8))
def test_member_ids_differ_when_members_do(raws: list[bytes]) -> None:
    names = RepeatedNames()
    ids = [names.name(member_id("s3://b/x.tar", raw)) for raw in [*raws, raws[0]]]
    assert len(set(ids)) == len(ids)
    assert all(one.isascii() and one.count("#") == 1 for one in ids)
    assert [one for one in ids if "~" in one]  # the first one comes twice
    member_text(raws[0]).encode("utf-8")


def test_a_name_cannot_imitate_a_repeat() -> None:
    assert member_id("x", b"a.jpg~2") == "x#a.jpg%7E2"
    assert encode_bytes(b"a~b") == "a%7Eb"


def test_base_is_taken_off_whole_folders_only() -> None:
    base = canonical_base("/mnt/a b")
    assert base == "file:///mnt/a%20b/"
    lister = Lister(config("/mnt", base="/mnt/a b"), FAST, 1)
    assert lister.without_base("file:///mnt/a%20b/x.jpg") == "x.jpg"
    assert lister.without_base("file:///mnt/a%20bc/x.jpg") == "file:///mnt/a%20bc/x.jpg"
    assert Lister(config("/mnt"), FAST, 1).without_base("file:///x.jpg") == "file:///x.jpg"
    assert canonical_base("s3://bucket/in") == "s3://bucket/in/"
    assert canonical_base("/mnt/x/../y/") == "file:///mnt/y/"
