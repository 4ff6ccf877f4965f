from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from textspot_ray.errors import UsageError
from textspot_ray.evaluation.ground_truth import (
    GtWord,
    gt_key,
    parse_ground_truth,
    parse_line,
    read_ground_truth,
)
from textspot_ray.export.names import image_key

BOX = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
LINE = "1,2,3,4,5,6,7,8,"


def test_the_whole_tail_is_the_text() -> None:
    assert parse_line(LINE + "10,STRAPS") == GtWord(BOX, "10,STRAPS")


def test_quotes_are_taken_off_and_unescaped() -> None:
    assert parse_line(LINE + r'"say \"hi\""').text == 'say "hi"'
    assert parse_line(LINE + 'a"b').text == 'a"b'


def test_numbers_may_be_negative_spaced_or_fractional() -> None:
    assert parse_line("-1, 2 ,3,4,5,6,7,8.5,x").polygon == (-1, 2, 3, 4, 5, 6, 7, 8.5)


@pytest.mark.parametrize("line", ["", "1,2,3", "a,b,c,d,e,f,g,h,word", "1,2,3,4,5,6,7,8"])
def test_a_broken_line_is_named(line: str) -> None:
    with pytest.raises(UsageError, match="here"):
        parse_line(line, "here")


def test_mark_line_ends_and_odd_separators_are_tolerated() -> None:
    data = ("\ufeff" + LINE + "one\r\n\r\n" + LINE + "two\u2028three\r\n").encode()
    assert [word.text for word in parse_ground_truth(data, "f")] == ["one", "two\u2028three"]


def test_other_encodings_are_refused_with_the_file_named() -> None:
    with pytest.raises(UsageError, match=r"f\.txt is not UTF-8"):
        parse_ground_truth(LINE.encode() + b"caf\xe9", "f.txt")


@pytest.mark.parametrize(
    ("image_id", "key"),
    [
        ("file:///data/ic15/img_901.jpg", "img_901"),
        ("s3://b/x/dev.tar#icdar2015_dev/images/img_7.jpg", "img_7"),
        ("img%5F7.png", "img_7"),
        ("a/rows.parquet#2", "2"),
        ("a/scan.tif#page=2", "scan"),
        ("a/t.zip#in/x.y.jpg", "x.y"),
    ],
)
def test_an_image_is_joined_by_the_stem_of_its_name(image_id: str, key: str) -> None:
    assert image_key(image_id) == key


def test_ground_truth_is_joined_with_and_without_prefix() -> None:
    assert gt_key("gt/gt_img_7.txt") == gt_key("img_7.txt") == "img_7"


def make(path: Path, names: dict[str, bytes], kind: str) -> Path:
    if kind == "folder":
        for name, data in names.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return path
    target = path / f"gt.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, data in names.items():
                archive.writestr(name, data)
        return target
    with tarfile.open(target, "w:gz" if kind == "tar.gz" else "w") as tar:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_folder_zip_and_tar_are_read_alike(tmp_path: Path, kind: str) -> None:
    names = {
        "d/gt/gt_img_1.txt": (LINE + "one").encode(),
        "d/gt/gt_img_2.txt": b"",
        "d/README.txt": b"not ground truth",
        "d/images/img_1.jpg": b"\xff\xd8",
    }
    found = read_ground_truth(make(tmp_path, names, kind))
    assert found == {"img_1": (GtWord(BOX, "one"),), "img_2": ()}


def test_what_is_not_there_or_twice_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing.tar: No such file or directory$"):
        read_ground_truth(tmp_path / "nothing.tar")
    with pytest.raises(UsageError, match="no ground truth"):
        read_ground_truth(tmp_path)
    make(tmp_path, {"a/gt_img_1.txt": b"", "b/img_1.txt": b""}, "folder")
    with pytest.raises(UsageError, match="two ground truth files"):
        read_ground_truth(tmp_path)
