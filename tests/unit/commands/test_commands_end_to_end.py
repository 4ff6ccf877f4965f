"""Every command on one real table: run by the local engine on painted pictures, then used."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.cli import main
from textspot_ray.errors import ExitCode

PAINTED = {f"p{i}.jpg": {i: f"word{i}", 40 + i: "hello"} for i in range(5)}


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a blank, a broken one and a text, and a tar with two more."""
    folder = tmp_path_factory.mktemp("archive") / "my photos"
    folder.mkdir()
    for name, words in PAINTED.items():
        (folder / name).write_bytes(jpeg(draw(words)))
    (folder / "blank.png").write_bytes(cv2.imencode(".png", draw({}))[1].tobytes())
    (folder / "broken.jpg").write_bytes(jpeg(draw({}))[:500])
    (folder / "notes.txt").write_text("not an image")
    with tarfile.open(folder.parent / "more.tar", "w") as tar:
        for name, text in (("a/x.jpg", "intar"), ("a/y.jpg", "hello")):
            data = jpeg(draw({7: text}))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return folder.parent


@pytest.fixture(scope="module")
def table(sources: Path) -> str:
    """The table of those sources."""
    write_stub_bundle(sources / "stub")
    out = str(sources / "out")
    assert main(run_arguments(sources, out)) == ExitCode.FAILED_IMAGES
    return out


def run_arguments(sources: Path, out: str) -> list[str]:
    return [
        "run",
        str(sources / "my photos"),
        str(sources / "more.tar"),
        "--out",
        out,
        "--model",
        str(sources / "stub"),
        "--engine",
        "local",
        "--quiet",
    ]


@pytest.mark.parametrize(
    ("option", "configured", "model"),
    [("", False, True), ("--verbose", True, True), ("--quiet", False, False)],
)
def test_how_much_a_run_says(
    sources: Path,
    table: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    configured: bool,
    model: bool,
) -> None:
    command = [word for word in run_arguments(sources, str(tmp_path / "o")) if word != "--quiet"]
    capsys.readouterr()
    assert Path(table).is_dir()  # its fixture wrote the bundle
    main([*command, *filter(None, [option]), "--limit", "1"])
    said = capsys.readouterr().err
    assert ("max_shard_items" in said) is configured
    assert ("model: " in said) is model


def test_json_logs_hold_nothing_else(
    sources: Path, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [word for word in run_arguments(sources, str(tmp_path / "o")) if word != "--quiet"]
    capsys.readouterr()
    assert Path(table).is_dir()
    main([*command, "--set", "engine.log_format=json"])
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert said[0]["message"].startswith("model: ")
    assert said[-1]["images"] == 9 and all(entry["time"] for entry in said)


def test_a_run_tells_of_damaged_files_and_how_to_list_them(
    sources: Path, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = jpeg(draw(next(iter(PAINTED.values()))))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.jpg").write_bytes(whole[:-200])
    (tmp_path / "in" / "sound.jpg").write_bytes(whole)
    out = str(tmp_path / "o")
    assert Path(table).is_dir()
    command = ["run", str(tmp_path / "in"), *run_arguments(sources, out)[3:]]
    assert main(command) == ExitCode.OK
    hint = f"damaged  1 file read as far as a decoder could: textspot errors {out} --damaged"
    assert f"  {hint}" in lines(capsys)
    main(["status", out])
    assert hint in lines(capsys)
    main(["errors", out, "--damaged"])
    (listed,) = lines(capsys)
    assert "cut.jpg" in listed


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def query(table: str, sql: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["query", table, sql, "--format", "json"]) == ExitCode.OK
    return [json.loads(line) for line in lines(capsys)]


def test_tables_say_what_was_painted(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = query(table, "SELECT text, image_id FROM words ORDER BY image_id, text", capsys)
    got: dict[str, set[str]] = {}
    for row in rows:
        got.setdefault(str(row["image_id"]).rsplit("/", 1)[-1], set()).add(str(row["text"]))
    assert got == {
        **{name: set(words.values()) for name, words in PAINTED.items()},
        "x.jpg": {"intar"},
        "y.jpg": {"hello"},
    }


def test_every_image_is_accounted_for(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = query(table, "SELECT status, count(*) AS n FROM images GROUP BY status", capsys)
    assert {r["status"]: r["n"] for r in rows} == {"words": 7, "empty": 1, "failed": 1}
    (sums,) = query(
        table, "SELECT sum(n_words) AS a, (SELECT count(*) FROM words) AS b FROM images", capsys
    )
    assert int(str(sums["a"])) == int(str(sums["b"])) == 12


def test_running_again_does_nothing_and_says_the_same(
    sources: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["files", table])
    before = lines(capsys)
    assert main(run_arguments(sources, table)) == ExitCode.FAILED_IMAGES
    shown = capsys.readouterr().out
    assert "spotted 0 images" in shown
    main(["files", table])
    assert lines(capsys) == before


def test_other_settings_are_refused_with_the_difference(
    sources: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*run_arguments(sources, table), "--detection-threshold", "0.7"])
    assert code == ExitCode.FINGERPRINT
    shown = capsys.readouterr().err
    assert "detection_threshold" in shown
    assert "0.5" in shown
    assert "0.7" in shown
    assert "Traceback" not in shown


def test_status_errors_verify_files(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", table]) == ExitCode.OK
    assert "done" in lines(capsys)[0]
    assert main(["status", table, "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["counts"]["images"] == 9
    assert main(["status", table, "--watch"]) == ExitCode.OK  # done: there is nothing to wait for
    assert "done" in lines(capsys)[0]
    assert main(["errors", table]) == ExitCode.OK
    (error,) = lines(capsys)
    assert "broken.jpg" in error
    assert error.split("\t")[1:3] == ["decode", "truncated"]
    assert main(["verify", table]) == ExitCode.OK
    assert lines(capsys)[0].startswith("sound")
    assert main(["files", table, "--only", "words"]) == ExitCode.OK
    assert all(Path(path).is_file() for path in lines(capsys))
    assert main(["clean", table]) == ExitCode.OK


def test_messages_cannot_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a\x1b[31m.jpg").write_bytes(jpeg(draw({}))[:300])
    write_stub_bundle(tmp_path / "stub")
    out = str(tmp_path / "out")
    run = ["run", str(photos), "--out", out, "--model", str(tmp_path / "stub")]
    assert main([*run, "--engine", "local", "-q"]) == ExitCode.FAILED_IMAGES
    capsys.readouterr()
    assert main(["errors", out]) == ExitCode.OK
    assert "\x1b" not in capsys.readouterr().out


def test_plan_counts_without_writing(
    sources: Path, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "never"
    arguments = ["plan", str(sources / "my photos"), "--model", str(sources / "stub")]
    assert main([*arguments, "--out", str(fresh), "--probe", "2"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "7 listed" in shown
    assert "7 new" in shown
    assert "passes an image" in shown
    assert not fresh.exists()
    assert main([*arguments, "--out", table, "--probe", "0"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "0 new" in shown
    assert "9 items are in" in shown


def test_retry_failed_tells_that_a_file_is_no_longer_what_was_planned(
    tmp_path: Path, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    whole = jpeg(draw({3: "mended"}))
    (photos / "cut.jpg").write_bytes(whole[:100])  # within the header: no pixels at all
    (photos / "fine.jpg").write_bytes(jpeg(draw({5: "fine"})))
    write_stub_bundle(tmp_path / "stub")
    out = str(tmp_path / "out")
    run = ["run", str(photos), "--out", out, "--model", str(tmp_path / "stub")]
    assert main([*run, "--engine", "local", "-q"]) == ExitCode.FAILED_IMAGES
    assert main(["retry-failed", out]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "nothing to try again" in shown, "a cut file is no passing fault"
    assert "others failed (1 truncated): --all tries them" in shown
    assert main(["retry-failed", out, "--kind", "nonsense"]) == ExitCode.USAGE
    (photos / "cut.jpg").write_bytes(whole)
    assert main(["retry-failed", out, "--all"]) == ExitCode.FAILED_IMAGES
    assert re.findall(r"(\d+)/(\d+) images", capsys.readouterr().err)[-1] == ("2", "2")
    assert main(["verify", out]) == ExitCode.OK
    rows = query(out, "SELECT text FROM words ORDER BY text", capsys)
    errors = query(out, "SELECT kind FROM errors", capsys)
    assert [r["text"] for r in rows] == ["fine"]
    assert [e["kind"] for e in errors] == ["changed"]


def test_search_export_compact_merge_forget(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", table, "hello", "--json"]) == ExitCode.OK
    assert len(lines(capsys)) == 6
    assert main(["search", table, "absent"]) == ExitCode.NO_MATCH
    assert main(["export", table, "--format", "txt"]) == ExitCode.OK
    assert "intar" in capsys.readouterr().out
    copy = tmp_path / "copy"
    assert main(["merge", table, table, "--out", str(copy)]) == ExitCode.OK
    assert main(["compact", str(copy)]) == ExitCode.OK
    capsys.readouterr()
    assert main(["search", str(copy), "hello", "--json"]) == ExitCode.OK
    assert len(lines(capsys)) == 6
    assert main(["forget", str(copy), "--where", "image_id LIKE '%p0.jpg'"]) == ExitCode.USAGE
    assert "--yes" in capsys.readouterr().err
    assert main(["forget", str(copy), "--where", "image_id LIKE '%p0.jpg'", "-y"]) == ExitCode.OK
    assert "took out 1 image and 2 words" in capsys.readouterr().out
    assert main(["verify", str(copy)]) == ExitCode.OK
    assert main(["search", str(copy), "word0"]) == ExitCode.NO_MATCH
    assert main(["search", table, "word0"]) == ExitCode.OK, "the original is untouched"


def test_after_compact_names_match_every_word_once_unless_old_files_are_kept(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(table, copy)
    n_words = len(query(str(copy), "SELECT 1 FROM words", capsys))

    def globbed() -> int:
        return sum(pq.read_metadata(path).num_rows for path in (copy / "words").iterdir())

    assert main(["compact", str(copy), "--grace", "10"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "stay for 10 minutes" in said and f"textspot clean {copy}" in said
    assert globbed() == 2 * n_words, "what it warns of"
    assert len(query(str(copy), "SELECT 1 FROM words", capsys)) == n_words
    assert main(["clean", str(copy)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "deleted 0 files" in said and "replaced files kept" in said and "--grace 0" in said
    assert main(["compact", str(copy)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert said.startswith(f"nothing to compact: {n_words} words in ") and "stay" not in said
    assert globbed() == n_words, "an earlier compact's files go as well"
    (copy / "again").mkdir()
    shutil.copytree(table, copy / "again", dirs_exist_ok=True)
    copy = copy / "again"
    assert main(["compact", str(copy)]) == ExitCode.OK
    assert "stay" not in capsys.readouterr().out and globbed() == n_words


@pytest.mark.parametrize(
    "command", ["status", "errors", "verify", "files", "clean", "compact", "retry-failed", "query"]
)
def test_a_folder_that_is_no_table_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["SELECT 1"] if command == "query" else []
    assert main([command, str(tmp_path), *extra]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "not a textspot table" in shown
    assert shown.count("\n") == 1


def test_missing_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    write_stub_bundle(tmp_path / "stub")
    code = main(
        ["run", str(tmp_path / "none"), "--out", out, "--model", str(tmp_path / "stub"),
         "--engine", "local", "-q"]
    )  # fmt: skip
    assert code == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "none" in shown
    assert "Traceback" not in shown


def test_models_list_and_check(
    sources: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list"]) == ExitCode.OK
    assert "text-spotting-0003" in capsys.readouterr().out
    assert main(["models", "check", str(sources / "stub")]) == ExitCode.OK
    assert "checksums are right" in capsys.readouterr().out
    assert main(["models", "check", "nonesuch"]) == ExitCode.USAGE
