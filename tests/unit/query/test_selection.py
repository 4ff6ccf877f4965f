from __future__ import annotations

from fnmatch import fnmatchcase

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textspot_ray.errors import UsageError
from textspot_ray.query.selection import source_condition
from textspot_ray.query.source_roots import parse_roots
from textspot_ray.sources.identity import canonical


def chosen(glob: str, *ids: str) -> list[str]:
    condition, parameters = source_condition(glob)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE images (image_id VARCHAR, source VARCHAR)")
        for image_id in ids:
            source = image_id.partition("#")[0]
            connection.execute("INSERT INTO images VALUES (?, ?)", [image_id, source])
        sql = f"SELECT image_id FROM images WHERE {condition}"
        return [row[0] for row in connection.execute(sql, parameters).fetchall()]


@pytest.mark.parametrize(
    ("glob", "image_id", "found"),
    [
        ("*a b*", "file:///r/a%20b.jpg", True),
        ("*日本*", "file:///r/%E6%97%A5%E6%9C%AC/1.jpg", True),
        ("*日?/1.jpg", "file:///r/%E6%97%A5%E6%9C%AC/1.jpg", True),
        ("*[日月]?/1.jpg", "file:///r/%E6%97%A5%E6%9C%AC/1.jpg", True),
        ("*a?b*", "file:///r/a%20b.jpg", True),
        ("*a?b.jpg", "file:///r/a%20%20b.jpg", False),
        ("img_1.jpg", "file:///r/img_1.jpg", True),
        ("img_1.jpg", "file:///r/img_11.jpg", False),
        ("img_1.jpg", "file:///r/x_img_1.jpg", False),
        ("img_1.jpg", "s3://b/x.tar#a/img_1.jpg", True),
        ("scan.tif", "file:///r/scan.tif#page=3", True),
        ("img_*.jpg", "file:///r/img_1.jpg", True),
        ("img_*.jpg", "file:///img_r/x.jpg", False),
        ("my photo.jpg", "file:///r/my%20photo.jpg", True),
        ("s3://b/*", "s3://b/x.tar#a.jpg", True),
        ("*50%.jpg", "file:///r/50%25.jpg", True),
        ("user id 7", "user id 7", True),
        ("*.png", "file:///r/a.jpg", False),
        ("(a+b).jpg", "file:///r/(a+b).jpg", True),
    ],
)
def test_globs_match_what_people_see(glob: str, image_id: str, found: bool) -> None:
    assert bool(chosen(glob, image_id)) is found


names = st.text(alphabet="ab é日%.+(", min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(names, st.text(alphabet="ab é日%.+(*?", min_size=1, max_size=6))
def test_a_bare_glob_is_of_the_decoded_file_name(name: str, glob: str) -> None:
    image_id = canonical("file", f"/Z/{name}")
    if fnmatchcase(name, glob):
        assert chosen(glob, image_id) == [image_id]


def test_moved_sources() -> None:
    roots = parse_roots(["/old photos=s3://b/new", "/old photos/x=/elsewhere"])
    assert roots.move("file:///old%20photos/a.jpg") == "s3://b/new/a.jpg"
    assert roots.move("file:///old%20photos/x/a.tar") == "file:///elsewhere/a.tar"
    assert roots.move("file:///old%20photosX/a.jpg") == "file:///old%20photosX/a.jpg"
    assert parse_roots(["/a.tar=/b.tar"]).move("file:///a.tar") == "file:///b.tar"
    assert parse_roots(["/a==b=/c"]).move("file:///a=b/x") == "file:///c/x"
    for bad in ("/old", "=/new", "/old="):
        with pytest.raises(UsageError, match="OLD=NEW"):
            parse_roots([bad])
