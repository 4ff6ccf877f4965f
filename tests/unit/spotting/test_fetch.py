"""Published models become verified bundles, whatever the network, the mirror or a rival does."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml

from tests.support.model_shop import MODEL, OMZ_PARTS, Shop, fetch_in_process
from tests.support.stub_bundle import draw
from textspot_ray.cli import main
from textspot_ray.errors import BundleError
from textspot_ray.spotting import download as fetch
from textspot_ray.spotting.bundle import BUNDLE_FILE
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.download import Patience
from textspot_ray.spotting.spotter import TextSpotter

QUICK = Patience(attempts=2, timeout_s=2.0)
FILES = 6


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    yield shop
    shop.close()


@pytest.fixture
def shop(goods: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    goods.asked.clear()
    goods.before = lambda handler, body: False
    monkeypatch.setattr(fetch, "_facts", lambda: goods.facts)
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    return goods


def bring(cache: Path, *weights: str, origin: str | None = None) -> Path:
    names = weights or ("FP32",)
    return fetch.fetch_model(MODEL, names, origin=origin, cache=cache, patience=QUICK)


def verified(cache: Path, *precisions: str) -> None:
    bundle = load_bundle(MODEL, cache)
    assert sorted(bundle.spec.precisions) == sorted(precisions)
    for precision in precisions:
        bundle.verify(precision)


def test_fetched_bundle_reads_words(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path))
    folder = fetch.fetch_model(MODEL, patience=QUICK)
    assert folder == tmp_path / "models" / MODEL
    spec = load_bundle(MODEL).spec
    assert (spec.detection_threshold, spec.text_threshold, spec.version) == (0.8, 0.3, "2021.3")
    assert spec.licence == "Apache-2.0"
    words = TextSpotter.load(MODEL, threads=1)(draw({3: "fetched", 40: "model"}))
    assert [word.text for word in words] == ["fetched", "model"]


def test_what_is_there_is_not_fetched_again(shop: Shop, tmp_path: Path) -> None:
    bring(tmp_path)
    assert len(shop.asked) == FILES
    bring(tmp_path)
    assert len(shop.asked) == FILES


@pytest.mark.parametrize("there", ["nothing", "everything", "all but one"])
@pytest.mark.parametrize("local", [False, True], ids=["publisher", "folder"])
def test_progress_adds_up_to_the_published_size(
    shop: Shop, tmp_path: Path, there: str, local: bool
) -> None:
    if there != "nothing":
        bring(tmp_path)
    if there == "all but one":
        (tmp_path / "models" / MODEL / "FP32" / f"{MODEL}-detector.xml").unlink()
    seen: list[int] = []
    fetch.fetch_model(
        MODEL,
        origin=str(shop.folder) if local else None,
        cache=tmp_path,
        patience=QUICK,
        on_bytes=seen.append,
    )
    assert sum(seen) == fetch.published_weights(MODEL)["FP32"].size


def test_the_command_tells_what_is_there_the_second_time_as_well(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path))
    size = fetch.published_weights(MODEL)["FP32"].size
    for _ in range(2):
        assert main(["models", "fetch", MODEL]) == 0
        said = capsys.readouterr().out
        assert f"{FILES} files, {size / 1e6:.1f} MB, checksums right" in said
    assert len(shop.asked) == FILES


def test_from_a_folder_the_checksum_decides(shop: Shop, tmp_path: Path) -> None:
    """FP32 and FP16 files have the same names; nothing but the bytes tells them apart."""
    shop.facts["root"] = "http://127.0.0.1:9/"  # nobody there
    try:
        folder = shop.folder / "2021.3"
        bring(tmp_path / "a", "FP16", origin=str(folder))
        bring(tmp_path / "b", "FP32", origin=str(folder))
        for cache, weights in (("a", "FP16"), ("b", "FP32")):
            verified(tmp_path / cache, "f32")
            stem = f"{MODEL}-detector.xml"
            have = tmp_path / cache / "models" / MODEL / weights / stem
            assert have.read_bytes() == shop.path(weights, "detector", "xml").read_bytes()
    finally:
        shop.facts["root"] = shop.root
    assert shop.asked == []


def test_from_a_folder_with_gaps_or_other_bytes(shop: Shop, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for part in OMZ_PARTS:
        for suffix in ("xml", "bin"):
            shutil.copy(shop.path("FP32", part, suffix), mine)
    decoder = mine / f"{MODEL}-recognizer-decoder.bin"
    good = decoder.read_bytes()
    decoder.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"FP32 .*decoder\.bin differs from the published one"):
        bring(tmp_path / "cache", origin=str(mine))
    decoder.unlink()
    with pytest.raises(BundleError, match=r"FP32 .*decoder\.bin is not there"):
        bring(tmp_path / "cache", origin=str(mine))
    with pytest.raises(BundleError, match="not here yet"):
        load_bundle(MODEL, tmp_path / "cache")
    decoder.write_bytes(good)
    bring(tmp_path / "cache", origin=str(mine))
    verified(tmp_path / "cache", "f32")


def test_from_a_mirror(shop: Shop, tmp_path: Path) -> None:
    mirror, shop.facts["root"] = shop.root.rstrip("/"), "http://127.0.0.1:9/"
    try:
        bring(tmp_path, origin=mirror)
    finally:
        shop.facts["root"] = shop.root
    verified(tmp_path, "f32")


def test_interrupted_fetch_goes_on(shop: Shop, tmp_path: Path) -> None:
    """The cable is pulled in the detector's weights; the second call asks for the rest only."""
    name = shop.path("FP32", "detector", "bin").name

    def pulled(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        if not handler.path.endswith(name):
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        return True

    shop.before = pulled
    with pytest.raises(BundleError, match=r"cannot fetch .*check the network"):
        bring(tmp_path)
    with pytest.raises(BundleError, match="not here yet"):
        load_bundle(MODEL, tmp_path)
    arrived = {path.rsplit("/", 1)[1] for path in shop.asked} - {name}
    shop.before = lambda handler, body: False
    shop.asked.clear()
    bring(tmp_path)
    verified(tmp_path, "f32")
    asked = [path.rsplit("/", 1)[1] for path in shop.asked]
    assert len(asked) == FILES - len(arrived), "a file that had arrived was fetched again"
    assert arrived and not arrived & set(asked)


def test_damaged_file_is_healed_alone(shop: Shop, tmp_path: Path) -> None:
    folder = bring(tmp_path)
    damaged = folder / "FP32" / f"{MODEL}-recognizer-encoder.xml"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(MODEL, tmp_path).verify("f32")
    shop.asked.clear()
    bring(tmp_path)
    verified(tmp_path, "f32")
    assert [path.rsplit("/", 1)[1] for path in shop.asked] == [damaged.name]


@pytest.mark.parametrize("text", ["", "schema: [", "schema: 99\n", "schema: 1\nname: x\n"])
def test_damaged_description_is_healed(shop: Shop, tmp_path: Path, text: str) -> None:
    folder = bring(tmp_path)
    (folder / BUNDLE_FILE).write_text(text)
    bring(tmp_path)
    verified(tmp_path, "f32")
    assert len(shop.asked) == FILES


def test_wrong_bytes_are_refused(shop: Shop, tmp_path: Path) -> None:
    def lies(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(bytes(len(body)))
        return True

    shop.before = lies
    with pytest.raises(BundleError, match=r"not the published file: its sha256 differs"):
        bring(tmp_path)
    with pytest.raises(BundleError, match="not here yet"):
        load_bundle(MODEL, tmp_path)
    shop.before = lambda handler, body: False
    bring(tmp_path)
    verified(tmp_path, "f32")


def test_two_precisions_make_one_bundle(shop: Shop, tmp_path: Path) -> None:
    bring(tmp_path, "FP32")
    before = load_bundle(MODEL, tmp_path).sha256s("f32")
    bring(tmp_path, "FP16-INT8")
    verified(tmp_path, "f32", "int8")
    bundle = load_bundle(MODEL, tmp_path)
    assert bundle.spec.default_precision == "f32"
    assert bundle.sha256s("f32") == before
    assert bundle.sha256s("int8") != before


def test_fp16_does_not_take_the_place_of_fp32(shop: Shop, tmp_path: Path) -> None:
    bring(tmp_path, "FP32", "FP16")
    assert (
        load_bundle(MODEL, tmp_path).model_files("f32")["detector"].graph.file.startswith("FP32/")
    )
    bring(tmp_path / "other", "FP16")
    assert (
        load_bundle(MODEL, tmp_path / "other")
        .model_files("f32")["detector"]
        .graph.file.startswith("FP16/")
    )
    bring(tmp_path / "other", "FP32")
    assert (
        load_bundle(MODEL, tmp_path / "other")
        .model_files("f32")["detector"]
        .graph.file.startswith("FP32/")
    )


def test_int8_alone_is_the_default(shop: Shop, tmp_path: Path) -> None:
    bring(tmp_path, "FP16-INT8")
    assert load_bundle(MODEL, tmp_path).spec.default_precision == "int8"


def test_two_fetchers_at_once_fetch_once(shop: Shop, tmp_path: Path) -> None:
    """Two processes: one waits for the other's lock and then finds everything there."""

    def slow(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        time.sleep(0.05)
        return False

    shop.before = slow
    arguments = (shop.facts, str(tmp_path), "FP32")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.starmap(fetch_in_process, [arguments, arguments], chunksize=1)
    assert set(folders) == {str(tmp_path / "models" / MODEL)}
    verified(tmp_path, "f32")
    assert len(shop.asked) == FILES


def test_waiting_for_a_fetcher_that_hangs_ends(shop: Shop, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "models").mkdir()
    with (
        FileLock(tmp_path / "models" / f".{MODEL}.lock"),
        pytest.raises(BundleError, match=r"another fetch .* does not end"),
    ):
        fetch.fetch_model(MODEL, cache=tmp_path, patience=QUICK, lock_timeout_s=0.1)


def test_no_half_bundle_is_ever_visible(shop: Shop, tmp_path: Path) -> None:
    """At every request, what `load_bundle` sees is either nothing or verifies."""
    seen: list[bool] = []

    def look(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
        try:
            bundle = load_bundle(MODEL, tmp_path)
        except BundleError:
            seen.append(False)
            return False
        for precision in bundle.spec.precisions:
            bundle.verify(precision)
        seen.append(True)
        return False

    shop.before = look
    bring(tmp_path, "FP32", "FP16-INT8")
    assert seen == [False] * FILES + [True] * FILES


def test_unwritable_cache_is_one_line(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(BundleError, match=r"cannot write to .*cache.*models: \w+"):
        bring(tmp_path / "cache")
    assert shop.asked == []


def test_no_network_says_what_to_do(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no connection; check the network.*--from DIR"):
        bring(tmp_path, origin="http://127.0.0.1:9/")
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("weights", "origin", "message"),
    [
        ("FP64", None, "has no FP64 weights; it has FP32, FP16, FP16-INT8"),
        ("FP32", "/no/such/folder", "--from /no/such/folder: no such folder"),
    ],
)
def test_mistakes_are_one_line(
    shop: Shop, tmp_path: Path, weights: str, origin: str | None, message: str
) -> None:
    with pytest.raises(BundleError) as caught:
        bring(tmp_path, weights, origin=origin)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_model_names_the_known() -> None:
    with pytest.raises(BundleError, match="there are text-spotting-0003, text-spotting-0004"):
        fetch.fetch_model("text-spotting-0009")


# ---- the packaged facts ----

# bytes of the FP32 and FP16 .bin files, which are four and two times the sum of the parameters
BIN_SIZES = {
    ("text-spotting-0003", "FP32", "detector"): 103_797_692,
    ("text-spotting-0003", "FP16", "detector"): 51_899_076,
    ("text-spotting-0003", "FP32", "encoder"): 5_311_488,
    ("text-spotting-0003", "FP16", "encoder"): 2_655_744,
    ("text-spotting-0003", "FP32", "decoder"): 2_707_708,
    ("text-spotting-0003", "FP16", "decoder"): 1_353_904,
    ("text-spotting-0004", "FP16-INT8", "detector"): 29_332_354,
    ("text-spotting-0005", "FP16-INT8", "detector"): 26_092_960,
}


@pytest.mark.parametrize(("key", "size"), BIN_SIZES.items())
def test_packaged_sizes(key: tuple[str, str, str], size: int) -> None:
    model, weights, part = key
    assert fetch.published_weights(model)[weights].files[f"{part}.bin"].size == size


def test_packaged_facts_are_whole() -> None:
    """48 files: 12 of 0003 (never released in INT8), 18 of 0004, 18 of 0005, all distinct."""
    files = [
        (model, weights, file)
        for model in ("text-spotting-0003", "text-spotting-0004", "text-spotting-0005")
        for weights, published in fetch.published_weights(model).items()
        for file in published.files.values()
    ]
    assert len([f for f in files if f[0] == "text-spotting-0003"]) == 12
    assert len(files) == len({file.checksum for *_, file in files}) == 48
    for model, weights, file in files:
        assert len(file.checksum) == (96 if model == "text-spotting-0005" else 64)
        assert set(file.checksum) <= set("0123456789abcdef")
        assert file.url.startswith("https://storage.openvinotoolkit.org/repositories/")
        assert f"/{weights}/" in file.url


def test_packaged_addresses_and_thresholds() -> None:
    detector = fetch.published_weights("text-spotting-0003")["FP32"].files["detector.bin"]
    assert detector.url == (
        "https://storage.openvinotoolkit.org/repositories/open_model_zoo/2021.2/models_bin/3/"
        "text-spotting-0003/text-spotting-0003-detector/FP32/text-spotting-0003-detector.bin"
    )
    facts = yaml.safe_load(
        Path(fetch.__file__).with_name("data").joinpath("published.yaml").read_text()
    )
    thresholds = {
        model: (facts["detection_threshold"], facts["text_threshold"])
        for model, facts in facts["models"].items()
    }
    assert thresholds == {
        "text-spotting-0003": (0.5, 0.5),
        "text-spotting-0004": (0.8, 0.3),
        "text-spotting-0005": (0.65, 0.45),
    }
