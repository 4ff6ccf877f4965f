"""The Python interface: whatever people have as an image, in one call."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import textspot_ray as ts
from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.cli import main
from textspot_ray.errors import ConfigError, ExitCode, TextspotError, UsageError

WORDS = {3: "one", 70: "two"}


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_stub_bundle(tmp_path_factory.mktemp("models") / "stub"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "a photo é.png"
    path.write_bytes(cv2.imencode(".png", draw(WORDS))[1].tobytes())
    return path


def read(image: Any, stub: str, **options: Any) -> Any:
    return ts.read(image, model=stub, threads=1, **options)


def pil_of(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


INPUTS = {
    "path": lambda path: path,
    "str": str,
    "file URI": lambda path: f"file://{path}",
    "encoded file URI": lambda path: path.as_uri(),
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file object": lambda path: io.BytesIO(path.read_bytes()),
    "PIL": Image.open,
    "array": lambda path: cv2.imread(str(path)),
    "BGRA": lambda path: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2BGRA),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_whatever_people_have_is_read(kind: str, stub: str, photo: Path) -> None:
    result = read(INPUTS[kind](photo), stub)
    assert result.error is None
    assert result.text == "one\ntwo"
    assert [word.text for word in result.words] == ["one", "two"]
    assert (result.width, result.height) == (1280, 768)


def test_rgb_is_told(stub: str, photo: Path) -> None:
    bgr = cv2.imread(str(photo))
    bgr[:, :, 0] //= 2  # so that the order of the channels matters
    rgb = np.ascontiguousarray(bgr[:, :, ::-1])
    as_bgr, as_rgb = read(bgr, stub), read(rgb, stub, colours="rgb")
    assert as_bgr.words == as_rgb.words
    assert np.array_equal(as_bgr._content, as_rgb._content)
    with pytest.raises(ConfigError, match="colours must be bgr or rgb, not 'gbr'"):
        read(bgr, stub, colours="gbr")


def test_deep_grey_and_transparent_pil_images_keep_their_text(stub: str) -> None:
    from textspot_ray.spotting.inputs import image_content

    grey = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    _, pixels = image_content(Image.fromarray(grey))  # 12 bits in 16: not cut at 255
    assert isinstance(pixels, np.ndarray)
    assert pixels.min() == 0 and pixels.max() == 255
    assert 120 < pixels.mean() < 136
    clear = np.zeros((64, 64, 4), np.uint8)  # black text, transparent black around it
    clear[20:40, 20:40, 3] = 255
    for image in (Image.fromarray(clear, "RGBA"), clear):
        _, pixels = image_content(image)
        assert isinstance(pixels, np.ndarray)
        assert pixels[30, 30].tolist() == [0, 0, 0]
        assert pixels[0, 0].min() > 200
    turned = Image.fromarray(np.zeros((30, 60, 3), np.uint8))
    turned.getexif()[0x0112] = 6
    _, pixels = image_content(turned)
    assert isinstance(pixels, np.ndarray) and pixels.shape == (60, 30, 3)


def test_a_list_gives_a_list(stub: str, photo: Path) -> None:
    results = read([photo, photo.read_bytes()], stub)
    assert [r.text for r in results] == ["one\ntwo"] * 2
    assert [bool(r.source) for r in results] == [True, False]
    assert read([], stub) == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("/no/such.jpg", "cannot read /no/such.jpg: No such file"),
        ("/tmp", "/tmp is a folder"),
        ("nonesuch://x/y.jpg", "unknown scheme nonesuch://"),
        ("a\0b", "null character"),
        (7, "an image must be a path, a URI, bytes, a PIL image or an array, not a int"),
        (None, "not a NoneType"),
        (np.zeros((5, 5)), r"pixels must be H x W \(x 3 or 4\) uint8, not \(5, 5\) float64"),
        (np.zeros((0, 5, 3), np.uint8), "not (0, 5, 3)"),
        (np.zeros((5, 5, 2), np.uint8), "not (5, 5, 2)"),
        (io.StringIO("text"), "binary mode"),
        (io.TextIOWrapper(io.BytesIO(b"\xff\xd8\xff")), "binary mode"),
        ("/no/such/*.jpg", "patterns are for textspot run"),
    ],
)
def test_wrong_inputs_are_one_line(image: Any, said: str, stub: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(image, stub)
    message = str(caught.value)
    assert said.replace("\\", "") in message
    assert "\n" not in message


def test_a_url_is_read_over_http(stub: str, photo: Path) -> None:
    pytest.importorskip("aiohttp")
    import functools
    import http.server
    import threading

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(photo.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            base = f"http://127.0.0.1:{server.server_address[1]}"
            result = read(f"{base}/a%20photo%20%C3%A9.png", stub)
            assert result.text == "one\ntwo"
            assert result.source == f"{base}/a%20photo%20%C3%A9.png"
            with pytest.raises(UsageError, match=r"cannot read http://.*/none\.jpg"):
                read(f"{base}/none.jpg", stub)
        finally:
            server.shutdown()


def test_storage_options_reach_what_reads_uris(
    stub: str, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    made = []

    class Shop(fsspec.get_filesystem_class("memory")):  # type: ignore[misc]
        protocol = "shop"
        cachable = False

        def __init__(self, door: str = "", **options: Any) -> None:
            super().__init__(**options)
            made.append(door)

    fsspec.register_implementation("shop", Shop, clobber=True)
    Shop().pipe_file("/bucket/a.png", photo.read_bytes())
    made.clear()
    given = {"storage_options": {"shop": {"door": "back"}}}
    assert read("shop://bucket/a.png", stub, **given).text == "one\ntwo"
    (streamed,) = ts.spot(["shop://bucket/a.png"], model=stub, **given)
    assert streamed.text == "one\ntwo"
    assert set(made) == {"back"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detection_threshold": 7}, r"model.detection_threshold must be in \[0, 1\), not 7"),
        ({"detection_threshold": "high"}, "model.detection_threshold must be a number, not 'high'"),
        ({"threads": -3}, "engine.threads must be at least 1, not -3"),
        ({"threads": 0}, "engine.threads must be at least 1, not 0"),
        ({"precision": "f64"}, "model.precision must be one of f32, bf16, int8"),
        ({"tiles": "on"}, "image.tiles must be one of off, auto, all"),
        ({"min_confidence": 2}, r"min_confidence must be in \[0, 1\], not 2"),
        ({"min_confidence": "x"}, r"min_confidence must be in \[0, 1\], not 'x'"),
    ],
)
def test_options_are_checked_as_the_command_line_does(
    options: dict[str, Any], said: str, stub: str, photo: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        ts.read(photo, model=stub, **options)
    options.pop("tiles", None)
    options.pop("min_confidence", None)
    if options:
        with pytest.raises(ConfigError, match=said):
            ts.TextSpotter.load(stub, **options)


def test_an_image_that_cannot_be_decoded_has_its_error(stub: str) -> None:
    result = read(b"no image", stub)
    assert result.error
    assert result.words == [] and result.text == ""
    assert result.to_dict()["status"] == "failed"
    assert "failed" in repr(result)
    with pytest.raises(UsageError, match="nothing to draw"):
        result.draw()
    with pytest.raises(UsageError, match="nothing to export"):
        result.export("hocr")
    assert json.loads(result.export("jsonl"))["status"] == "failed"


def test_of_several_pages_one_is_said_to_be_one(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [pil_of(draw(words)) for words in (WORDS, {3: "three"})]
    path, drawn = tmp_path / "scan.tif", tmp_path / "drawn.png"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert repr(read(path, stub)) == f"SpotResult({str(path)!r}, page 1 of 2, 1280x768, 2 words)"
    assert "page 2 of 2" in repr(read(path, stub, page=1))
    assert main(["read", str(path), "--model", stub, "--draw", str(drawn)]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert "three" in out and drawn.exists()
    assert err == f"textspot: {drawn} shows page 1 of 2\n"


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_an_archive_is_called_one(suffix: str, stub: str, photo: Path, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "a"), suffix, photo.parent)
    assert read(packed, stub).error == f"not an image but a {suffix} archive"


def test_a_result_shows_itself(stub: str, photo: Path) -> None:
    result = read(photo, stub)
    assert repr(result) == f"SpotResult({str(photo)!r}, 1280x768, 2 words)"
    plain = json.loads(json.dumps(result.to_dict()))
    assert [(w["text"], w["line"]) for w in plain["words"]] == [("one", 0), ("two", 1)]
    frame = result.to_pandas()
    assert frame["text"].tolist() == ["one", "two"]
    assert "ocrx_word" in result.export() and ">two<" in result.export()
    assert result.draw(longest_px=640).size == (640, 384)
    assert result._repr_png_().startswith(b"\x89PNG")
    again = pickle.loads(pickle.dumps(result))
    assert again.text == result.text and again.draw().size == (1280, 768)
    with pytest.raises(UsageError, match="no format 'docx' for text; one of tsv"):
        result.export("docx")
    with pytest.raises(UsageError, match="did you mean hocr"):
        result.export("hcor")
    with pytest.raises(UsageError, match="textspot export -f pdf"):
        result.export("pdf")
    assert len(repr(result.words[0])) < 250  # whole lists of them are looked at


def test_least_confidence_is_the_bundles_or_asked_for(stub: str, photo: Path) -> None:
    spotter = ts.TextSpotter.load(stub, threads=1)
    assert read(photo, stub).min_confidence == spotter.text_threshold
    assert read(photo, stub, min_confidence=1.0).words == []
    assert len(spotter(photo)) == 2
    assert spotter(photo, min_confidence=1.0) == []


def test_spot_streams_in_order_and_keeps_going(stub: str, photo: Path, tmp_path: Path) -> None:
    taken = []

    def images() -> Any:
        for n in range(1000):
            taken.append(n)
            yield [photo, tmp_path / "none.jpg", b"no image", draw({0: "x"})][n % 4]

    stream = ts.spot(images(), model=stub, threads=1)
    results = [next(stream) for _ in range(4)]
    assert len(taken) < 10  # bounded: an endless source is not drained
    stream.close()
    assert [r.text for r in results] == ["one\ntwo", "", "", "x"]
    assert results[1].record.error.kind == "missing"
    assert "No such file" in results[1].error
    with pytest.raises(UsageError, match=r"spot\(\) takes several images, not a bytes"):
        ts.spot(b"one image", model=stub)
    with pytest.raises(UsageError, match="not a int"):
        list(ts.spot([7], model=stub))


def test_spot_gives_every_page(stub: str, tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    first, *rest = (pil_of(draw({0: text})) for text in ("a", "b", "c"))
    first.save(path, save_all=True, append_images=rest)
    results = list(ts.spot([path], model=stub, threads=1))
    assert [(r.page, r.pages, r.text) for r in results] == [(0, 3, "a"), (1, 3, "b"), (2, 3, "c")]
    assert read(path, stub, page=2).text == "c"
    with pytest.raises(UsageError, match="no page 1"):
        read(draw({}), stub, page=1)


@pytest.mark.parametrize("where", ["out", None])
def test_spot_through_tables(stub: str, photo: Path, tmp_path: Path, where: str | None) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(photo.read_bytes())
    (tmp_path / "in" / "c.png").write_bytes(b"no image")
    out = None if where is None else tmp_path / where
    stream = ts.spot(tmp_path / "in", out, model=stub, threads=1)
    if out is not None:
        tables = ts.open_tables(str(out))  # made before it is walked over
        assert len(tables.sql("SELECT * FROM images").fetchall()) == 3
    found = {Path(r.source).name: r for r in stream}
    assert found["a.png"].text == "one\ntwo"
    assert found["c.png"].error
    assert [w.box for w in found["b.png"].words] == [w.box for w in read(photo, stub).words]
    with pytest.raises(UsageError, match="tables are made of files and URIs, not of a bytes"):
        ts.spot([b"x"], tmp_path / "other", model=stub)


def test_run_takes_the_command_lines_names(stub: str, photo: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    report = ts.run(
        photo,
        out=tmp_path / "out",
        model=stub,
        engine="local",
        slots=1,
        threads=1,
        overrides=["engine.status_s=5"],
        on_progress=seen.append,
    )
    assert (report.counts.images, report.counts.words) == (1, 2)
    assert seen and seen[-1].final
    config = ts.load_config(
        overrides=[
            f"source.uris=[{json.dumps(str(photo))}]",
            f"output.uri={tmp_path / 'out'}",
            f"model.name={stub}",
            "engine.kind=local",
        ]
    )
    assert ts.run(config).run_counts.images == 0  # a RunConfig too, and nothing is done again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precison": "f32"}, "unknown option precison; did you mean precision?"),
        ({"engine": "locl"}, "engine.kind must be one of ray, local"),
        ({"limit": -1}, "source.limit must be at least 0"),
        ({"overrides": ["model.nme=x"]}, "did you mean model.name?"),
        ({"out": None}, "no output folder given: add out="),
        ({"storage_options": 3}, "storage_options must be dict"),
    ],
)
def test_run_tells_a_wrong_option(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ts.run("photos", **{"out": tmp_path / "out", **options})
    assert said in str(caught.value)
    with pytest.raises(ConfigError, match="give a RunConfig alone"):
        ts.run(ts.RunConfig(), out="x")


def test_options_reach_the_configuration_as_they_are(tmp_path: Path) -> None:
    from textspot_ray.options import KEYS, config_of

    names = ["/data/\U0001f600 é.jpg", "/data/\udcff.jpg", "a: [b]"]
    made = config_of(
        names,
        {"detection_threshold": 1e-5, "include": ("*.jpg",), "storage_options": {"s3": {"a": 1}}},
    )
    assert made.source.uris == tuple(names)
    assert made.model.detection_threshold == 1e-5
    assert made.source.include == ("*.jpg",)
    assert made.source.storage_options == made.output.storage_options == {"s3": {"a": 1}}
    file = tmp_path / "some.yaml"
    file.write_text("model:\nimage: {tiles: 'off'}\n")
    made = config_of([], {"model": "x"}, config=str(file), overrides=["engine.kind=local"])
    assert (made.model.name, made.image.tiles, made.engine.kind) == ("x", "off", "local")
    flat = {**made.__class__().__dataclass_fields__}
    assert {key.split(".")[0] for key in KEYS.values()} <= set(flat)


def test_the_command_lines_options_are_the_apis() -> None:
    """Whatever `run` takes under a short name, `ts.run` takes under the same."""
    import argparse

    from textspot_ray.commands.options import add_run_options
    from textspot_ray.options import KEYS, STORAGE_OPTIONS

    parser = argparse.ArgumentParser()
    add_run_options(parser, out_required=True)
    given = set(vars(parser.parse_args([]))) - {"source", "config", "set", "out_required"}
    assert given == {*KEYS, STORAGE_OPTIONS}


class TestReadCommand:
    def test_text(self, stub: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["read", str(photo), "--model", stub]) == ExitCode.OK
        out = capsys.readouterr()
        assert (out.out, out.err) == ("one\ntwo\n", "")

    def test_several_json_and_failed(
        self, stub: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "bad.jpg").write_bytes(b"no image")
        images = [str(photo), str(tmp_path / "bad.jpg"), str(tmp_path / "none.jpg")]
        assert main(["read", *images, "--json", "--model", stub]) == ExitCode.FAILED_IMAGES
        out = capsys.readouterr()
        rows = [json.loads(line) for line in out.out.splitlines()]
        assert [row["text"] for row in rows] == ["one\ntwo", "", ""]
        assert len(out.err.splitlines()) == 2
        assert all(line.startswith("textspot: ") for line in out.err.splitlines())
        assert main(["read", str(photo), str(photo), "--model", stub]) == ExitCode.OK
        assert capsys.readouterr().out == f"==> {photo} <==\none\ntwo\n" * 2

    def test_format_and_picture(
        self, stub: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        drawn = tmp_path / "words.png"
        command = ["read", str(photo), "--format", "alto", "--draw", str(drawn), "--model", stub]
        assert main(command) == ExitCode.OK
        assert 'CONTENT="two"' in capsys.readouterr().out
        assert Image.open(drawn).size == (1280, 768)

    def test_standard_input(
        self,
        stub: str,
        photo: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
        assert main(["read", "-", "--model", stub]) == ExitCode.OK
        assert capsys.readouterr().out == "one\ntwo\n"

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--format", "docx"], "no format 'docx'"),
            (["--format", "alto", "{photo}"], "a file of alto holds one image"),
            (["--draw", "/no/such/x.png"], "cannot write /no/such/x.png"),
            (["--draw", "x.png", "{photo}"], "--draw takes one IMAGE"),
            (["--model", "nonesuch"], "nonesuch"),
            (["--detection-threshold", "7"], "detection_threshold must be in"),
        ],
    )
    def test_mistakes_are_one_line(
        self,
        stub: str,
        photo: Path,
        capsys: pytest.CaptureFixture[str],
        options: list[str],
        said: str,
    ) -> None:
        given = [option.format(photo=photo) for option in options]
        assert main(["read", str(photo), "--model", stub, *given]) == ExitCode.USAGE
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1


class TestPipelines:
    def test_a_batch_of_ray_data(self, stub: str, photo: Path) -> None:
        spotter = ts.ray.Spotter(model=stub, threads=1)
        rgb = np.ascontiguousarray(cv2.imread(str(photo))[:, :, ::-1])
        batch = {"image": np.stack([rgb, np.zeros_like(rgb)]), "path": np.array(["a", "b"])}
        done = spotter(batch)
        assert list(done) == ["image", "path", "text", "words", "error"]
        assert done["text"].tolist() == ["one\ntwo", ""]
        assert [w["text"] for w in json.loads(done["words"][0])] == ["one", "two"]
        assert done["error"].tolist() == ["", ""]

    def test_bytes_paths_and_images_of_many_sizes(self, stub: str, photo: Path) -> None:
        spotter = ts.ray.Spotter(model=stub, threads=1)
        data = np.array([photo.read_bytes(), b"no image"], dtype=object)
        done = spotter({"bytes": data})
        assert done["text"].tolist() == ["one\ntwo", ""]
        assert done["error"][1]
        paths = np.array([str(photo), "/no/such.jpg"])
        done = spotter({"path": paths})
        assert done["text"].tolist() == ["one\ntwo", ""]
        assert "No such file" in done["error"][1]  # one lost file does not end the pipeline
        ragged = np.empty(2, dtype=object)
        ragged[:] = [np.zeros((30, 40, 3), np.uint8), np.zeros((50, 40, 3), np.uint8)]
        assert spotter({"image": ragged})["text"].tolist() == ["", ""]
        with pytest.raises(UsageError, match=r"no column image or .* among x: name it"):
            spotter({"x": data})
        with pytest.raises(UsageError, match="no column pixels among bytes"):
            ts.ray.Spotter("pixels", model=stub)({"bytes": data})

    def test_every_page_of_a_file_is_in_its_row(self, stub: str, tmp_path: Path) -> None:
        path = tmp_path / "pages.tif"
        pil_of(draw({0: "a"})).save(path, save_all=True, append_images=[pil_of(draw({1: "b"}))])
        done = ts.ray.Spotter(model=stub, threads=1)({"path": [str(path), str(path)]})
        assert done["text"].tolist() == ["a\fb", "a\fb"]
        assert [w["page"] for w in json.loads(done["words"][1])] == [0, 1]

    def test_it_travels_to_actors(self, stub: str) -> None:
        assert pickle.loads(pickle.dumps(ts.ray.Spotter(model=stub)))._options == {"model": stub}

    def test_a_row_of_datasets(self, stub: str, photo: Path) -> None:
        image = Image.open(photo)
        for value in (image, str(photo), {"bytes": photo.read_bytes(), "path": None}):
            row = ts.ray.add_words({"image": value}, model=stub, threads=1)
            assert row["text"] == "one\ntwo"
            assert [w["text"] for w in row["words"]] == ["one", "two"]
        assert ts.ray.add_words({"image": b"x"}, model=stub, threads=1)["error"]
        with pytest.raises(UsageError, match="no column image among jpg"):
            ts.ray.add_words({"jpg": image})


def test_every_fault_of_set_up_is_ours(stub: str) -> None:
    with pytest.raises(TextspotError):
        ts.read("x.jpg", model="/no/such/bundle")


def test_an_option_there_is_not_is_named() -> None:
    with pytest.raises(TypeError, match=r"there is no option 'modle'; did you mean model\?"):
        ts.read(b"", modle="x")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"there is no option 'limit'; there are model,"):
        ts.spot(["a.jpg"], "out", limit=3)  # type: ignore[call-arg]
