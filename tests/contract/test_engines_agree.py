"""The Ray engine gives the local engine's tables, row for row."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.support.lines_bundle import dark, draw_line, write_lines_bundle
from tests.support.scripted import (
    ScriptedModels,
    plain_scripts,
    scripted_config,
    scripted_parts,
    write_images,
)
from tests.support.stub_bundle import draw, write_stub_bundle
from tests.support.tables_equal import all_rows
from textspot_ray.config import config_from_dict
from textspot_ray.engine.run import exit_code, run
from textspot_ray.errors import BundleError, ExitCode

pytestmark = pytest.mark.ray


def test_same_tables_row_for_row(tmp_path, ray_cluster):
    scripts = plain_scripts(30)
    scripts[3] = "do=bad"
    scripts[7] = "words=a,b;pages=5"
    scripts[11] = "do=raise"
    scripts[13] = ""
    folder = write_images(tmp_path / "in", scripts)
    reports = {}
    for kind in ("local", "ray"):
        config = scripted_config(tmp_path / kind, kind=kind)
        reports[kind] = run(config, parts=scripted_parts(folder))
    assert all_rows(tmp_path / "local") == all_rows(tmp_path / "ray")
    assert reports["local"].counts == reports["ray"].counts
    assert reports["ray"].counts.images == 34 and reports["ray"].counts.failed == 2
    assert exit_code(reports["ray"]) is ExitCode.FAILED_IMAGES


def test_same_tables_with_a_real_bundle_and_real_files(tmp_path, ray_cluster):
    bundle = write_stub_bundle(tmp_path / "bundle")
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(8):
        picture = draw({cell: f"word{n}" for cell in range(0, 90, 10 + n)}, 1280 + 64 * n, 768)
        cv2.imwrite(str(folder / f"{n}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    cv2.imwrite(str(folder / "large.png"), draw({3: "large", 90: "image"}, 3000, 2000))
    whole = (folder / "0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.jpg").write_bytes(whole[:100])
    (folder / "notes.txt").write_text("no image")
    reports = {}
    for kind in ("local", "ray"):
        config = config_from_dict(
            {
                "source": {"uris": [str(folder)]},
                "model": {"name": str(bundle)},
                "engine": {"kind": kind},
                "output": {"uri": str(tmp_path / kind)},
            }
        )
        reports[kind] = run(config)
    local, on_ray = all_rows(tmp_path / "local"), all_rows(tmp_path / "ray")
    assert local == on_ray
    assert len(local["images"]) == 11
    (error,) = local["errors"]
    assert error["image_id"].endswith("/broken.jpg")
    (cut,) = [row for row in local["images"] if row["image_id"].endswith("/cut.jpg")]
    assert cut["damage"] and cut["status"] != "failed"  # read, and it is said
    texts = {row["text"] for row in local["words"]}
    assert {f"word{n}" for n in range(8)} <= texts
    assert sum(row["n_words"] for row in local["images"]) == len(local["words"])
    assert reports["local"].counts == reports["ray"].counts
    assert reports["ray"].skipped == reports["local"].skipped and reports["ray"].skipped


def test_same_tables_with_a_bundle_of_lines(tmp_path, ray_cluster):
    bundle = write_lines_bundle(tmp_path / "bundle")
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(6):
        picture = dark(640 + 64 * n, 480, seed=n)
        for row in range(n):
            draw_line(picture, f"line{row} of {n}", 20 + 30 * n, 20 + 80 * row, 30 + 4 * n)
        cv2.imwrite(str(folder / f"{n}.png"), picture)
    large = dark(4000, 3000)
    draw_line(large, "small print", 3300, 2700, 16)
    cv2.imwrite(str(folder / "large.png"), large)
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:3000])
    for kind in ("local", "ray"):
        config = config_from_dict(
            {
                "source": {"uris": [str(folder)]},
                "model": {"name": str(bundle)},
                "engine": {"kind": kind},
                "output": {"uri": str(tmp_path / kind)},
            }
        )
        run(config)
    local, on_ray = all_rows(tmp_path / "local"), all_rows(tmp_path / "ray")
    assert local == on_ray
    assert len(local["images"]) == 8 and len(local["errors"]) == 1
    assert not any(row["saturated"] for row in local["images"])
    found = {}
    for row in local["words"]:
        found.setdefault(row["image_id"].rpartition("/")[2], []).append(row["text"])
    for n in range(1, 6):
        wanted = [word for row in range(n) for word in (f"line{row}", "of", str(n))]
        assert found[f"{n}.png"] == wanted
    assert found["large.png"] == ["small", "print"]
    assert "0.png" not in found


def test_same_tables_where_unsure_readings_are_weighed(tmp_path, ray_cluster):
    folder = tmp_path / "in"
    folder.mkdir()
    for n, words in enumerate(
        (("l1brary", "i1legal"), ("mi1lion", "bi1lboard"), ("fa1ling", "l1ttle"))
    ):
        picture = np.full((360, 640, 3), 150, np.uint8)
        for row, word in enumerate(words):  # a digit between letters that look like it
            place = (60, 120 + 120 * row)
            cv2.putText(picture, word, place, cv2.FONT_HERSHEY_DUPLEX, 0.7 + 0.1 * n, (50, 50, 50))
        cv2.imwrite(str(folder / f"{n}.png"), cv2.GaussianBlur(picture, (0, 0), 1.2))

    def words_of(kind, dictionary):
        out = tmp_path / f"{kind}-{dictionary}"
        run(
            config_from_dict(
                {
                    "source": {"uris": [str(folder)]},
                    "model": {"dictionary": dictionary},
                    "engine": {"kind": kind},
                    "output": {"uri": str(out)},
                }
            )
        )
        return all_rows(out)["words"]

    local = words_of("local", True)
    assert local == words_of("ray", True)
    plain = {(row["image_id"], row["x_min"], row["y_min"]): row for row in words_of("local", False)}
    assert local and {(row["image_id"], row["x_min"], row["y_min"]) for row in local} == set(plain)
    weighed = [
        row
        for row in local
        if row["text_confidence"]
        != plain[row["image_id"], row["x_min"], row["y_min"]]["text_confidence"]
    ]
    assert weighed, "no reading was unsure"


def test_same_tables_where_large_words_are_looked_at_from_afar(tmp_path, ray_cluster):
    folder = tmp_path / "in"
    folder.mkdir()
    ink = {"color": (40, 30, 60), "lineType": cv2.LINE_AA}
    for n, word in enumerate(("BREADTALK", "LIBRARY", "")):
        picture = np.full((720, 1280, 3), 170, np.uint8)
        cv2.putText(picture, word, (60, 330), cv2.FONT_HERSHEY_DUPLEX, 5, thickness=16, **ink)
        cv2.putText(picture, "small", (900, 650), cv2.FONT_HERSHEY_DUPLEX, 1, thickness=2, **ink)
        cv2.imwrite(str(folder / f"{n}.png"), picture)
    for kind, tiles in (("local", "auto"), ("ray", "auto"), ("local", "off")):
        run(
            config_from_dict(
                {
                    "source": {"uris": [str(folder)]},
                    "image": {"tiles": tiles},
                    "engine": {"kind": kind},
                    "output": {"uri": str(tmp_path / f"{kind}-{tiles}")},
                }
            )
        )
    local, once = all_rows(tmp_path / "local-auto"), all_rows(tmp_path / "local-off")
    assert local == all_rows(tmp_path / "ray-auto")
    texts = [sorted(row["text"] for row in local["words"] if f"{n}.png" in row["image_id"])
             for n in range(3)]  # fmt: skip
    assert texts == [["breadtalk", "small"], ["library", "small"], ["small"]]
    # a pass over the whole, two coarser ones where the word is large in both
    assert [row["tiles"] for row in local["images"]] == [3, 3, 1]
    assert [row["tiles"] for row in once["images"]] == [1, 1, 1]
    assert "breadtalk" not in {row["text"] for row in once["words"]}


def test_the_same_fault_where_models_cannot_be_loaded(tmp_path, ray_cluster):
    folder = write_images(tmp_path / "in", plain_scripts(4))
    models = ScriptedModels(refuse="bundle x: detector.bin is truncated")
    for kind in ("local", "ray"):
        with pytest.raises(BundleError) as caught:
            run(scripted_config(tmp_path / kind, kind=kind), parts=scripted_parts(folder, models))
        assert str(caught.value) == "bundle x: detector.bin is truncated"
        assert caught.value.exit_code is ExitCode.USAGE
