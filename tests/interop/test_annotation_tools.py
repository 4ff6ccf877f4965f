"""COCO, crops and tables, read by pycocotools, Datumaro, datasets, WebDataset, pandas, polars."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.interop.conftest import HEIGHT, NAMES, WIDTH, WORDS

pytestmark = pytest.mark.interop
Export = Callable[..., object]


def test_pycocotools_loads_masks_and_finds_the_pictures(
    export: Export, pictures: Path, tmp_path: Path
) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    export("coco", tmp_path / "words.json")
    found = coco.COCO(str(tmp_path / "words.json"))
    images = found.loadImgs(found.getImgIds())
    assert sorted(image["file_name"] for image in images) == sorted(NAMES)
    for image in images:
        assert Image.open(pictures / image["file_name"]).size == (WIDTH, HEIGHT)
        notes = found.loadAnns(found.getAnnIds(imgIds=image["id"]))
        assert [note["attributes"]["text"] for note in notes] == [word.text for word in WORDS]
        for note, word in zip(notes, WORDS, strict=True):
            mask = found.annToMask(note)
            assert mask.sum() == pytest.approx(note["area"], rel=0.05)
            rows, columns = np.nonzero(mask)
            assert columns.mean() == pytest.approx(sum(word.polygon[0::2]) / 4, abs=1)
            assert rows.mean() == pytest.approx(sum(word.polygon[1::2]) / 4, abs=1)


def test_datumaro_reads_texts_as_attributes(export: Export, pictures: Path, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    root = tmp_path / "coco"
    shutil.copytree(pictures, root / "images" / "words")
    (root / "annotations").mkdir()
    export("coco", root / "annotations" / "instances_words.json")
    found = datumaro.Dataset.import_from(str(root), "coco_instances")
    items = list(found)
    assert len(items) == len(NAMES)
    for item in items:
        assert item.media.data.shape[:2] == (HEIGHT, WIDTH)
        said = [note.attributes["text"] for note in item.annotations]
        assert sorted(set(said)) == sorted(word.text for word in WORDS)


def test_datasets_open_crops_as_an_image_folder(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    export("crops", tmp_path / "crops")
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "crops"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(found) == len(NAMES) * len(WORDS)
    hello = next(row for row in found if row["text"] == "hello")
    assert hello["image"].size == (80, 24)


def test_webdataset_reads_crops(export: Export, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    export("crops", tmp_path / "crops.tar")
    found = list(
        webdataset.WebDataset(str(tmp_path / "crops.tar"), shardshuffle=False).decode("pil")
    )
    assert len(found) == len(NAMES) * len(WORDS)
    assert sorted({row["txt"] for row in found}) == sorted(word.text for word in WORDS)
    steep = next(row for row in found if row["txt"] == "steep")
    assert steep["jpg"].size == (120, 30) and steep["json"]["confidence"] == 0.9


def test_pandas_and_polars_read_tesseracts_tsv(export: Export, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    polars = pytest.importorskip("polars", reason="polars is not installed")
    export("tsv", tmp_path / "all.tsv")
    frame = pandas.read_csv(tmp_path / "all.tsv", sep="\t", quoting=3)
    words = frame[frame.level == 5]
    assert words.groupby("image").text.count().to_dict() == dict.fromkeys(NAMES, len(WORDS))
    other = polars.read_csv(tmp_path / "all.tsv", separator="\t", quote_char=None)
    assert other.filter(polars.col("level") == 5).height == len(words)


def test_cleval_scores_icdar_results_as_perfect(export: Export, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="CLEval needs torch")
    cleval = pytest.importorskip("cleval", reason="cleval is not installed")
    export("icdar", tmp_path / "results")
    export("icdar", tmp_path / "sure", confidences=True)
    metric = cleval.CLEvalMetric()
    for file in sorted((tmp_path / "results").iterdir()):
        lines = [line.split(",", 8) for line in file.read_text().splitlines()]
        quads = [[float(value) for value in line[:8]] for line in lines]
        letters = [line[8] for line in lines]
        metric(quads, quads, letters, letters, [False] * len(lines))
    result = metric.compute()
    assert float(result["det_h"] if isinstance(result, dict) else result.det_h) > 0.99
    sure = (tmp_path / "sure").iterdir()
    assert all(line.split(",")[8] == "0.9000" for f in sure for line in f.read_text().splitlines())


def test_jsonl_equals_the_table(export: Export, tmp_path: Path) -> None:
    export("jsonl", tmp_path / "all.jsonl")
    for line in (tmp_path / "all.jsonl").read_text().splitlines():
        found = {word["word_index"]: word for word in json.loads(line)["words"]}
        for n, word in enumerate(WORDS):
            assert found[n]["polygon"] == pytest.approx(word.polygon, abs=0.01)
            assert found[n]["box"] == pytest.approx(word.box, abs=0.01)
