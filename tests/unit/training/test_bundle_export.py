from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
ov = pytest.importorskip("openvino")

from jobs.training import export
from jobs.training import measure as measure_bundle
from jobs.training.data import datasets
from jobs.training.detector import scores as detector_scores
from jobs.training.detector import weights as detector_weights
from jobs.training.detector.crops import target_maps
from jobs.training.detector.graph import (
    assemble_detector,
    convert_refiner,
    convert_trunk,
    planar_features,
    quad_masks,
)
from jobs.training.detector.network import INPUT_SHAPES, MAP_CHANNELS, DetectorTrunk
from jobs.training.reader.augmentation import BETWEEN
from jobs.training.reader.network import Decoder, Encoder, ReaderSize, save_reader
from jobs.training.refiner.network import LOOKS
from jobs.training.refiner.rectification import Stem, text_features
from textspot_ray.errors import BundleError, SourceError, UsageError
from textspot_ray.evaluation.ground_truth import GtWord, Predicted
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.contract import check_augmentation
from textspot_ray.spotting.composite.detector import pyramid
from textspot_ray.spotting.geometry import mask_polygon

WORDS = [
    datasets.PhotoWord(datasets.rect_corners((375, 250), (238, 55), 12), "a"),
    datasets.PhotoWord(datasets.rect_corners((875, 375), (75, 18), -8), "b"),
    datasets.PhotoWord(datasets.rect_corners((225, 712), (188, 38), 90), "c"),
    datasets.PhotoWord(datasets.rect_corners((1550, 875), (150, 50), 180), "d"),  # over the rim
]


class FixedMaps(torch.nn.Module):
    """Stands in for a trained trunk: says what the targets want where the image is white."""

    def __init__(self, words: list[datasets.PhotoWord] = WORDS) -> None:
        super().__init__()
        target = torch.from_numpy(target_maps(words, 1600))[None, :, :240]
        maps = torch.full((1, MAP_CHANNELS, 240, 400), -8.0)
        maps[:, 0] = target[:, 0] * 16 - 8
        maps[:, 1:5] = torch.log(target[:, 2:6].clamp(min=0.3) / 16)
        maps[:, 5:7] = target[:, 6:8]
        self.register_buffer("maps", maps)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        light = torch.nn.functional.avg_pool2d(image.mean(1, keepdim=True) / 255, 4)
        shift = torch.tensor([1.0] + [0.0] * (MAP_CHANNELS - 1)).view(1, -1, 1, 1)
        return self.maps - shift * (1 - light) * 20


@pytest.fixture(scope="module")
def detector() -> ov.CompiledModel:
    model = assemble_detector(convert_trunk(FixedMaps()), 0.3)
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def white() -> np.ndarray:
    return np.full((1, 3, 1440, 1600), 255, np.uint8)


def test_the_detector_has_the_names_and_shapes_of_the_contract(detector: ov.CompiledModel) -> None:
    (image,) = detector.inputs
    assert image.any_name == "image" and list(image.shape) == [1, 3, 1440, 1600]
    assert image.element_type == ov.Type.u8
    shapes = {p.any_name: [str(d) for d in p.partial_shape][1:] for p in detector.outputs}
    assert shapes == {
        "labels": [],
        "boxes": ["5"],
        "masks": ["28", "28"],
        "text_features": ["64", "28", "28"],
    }


def test_the_graph_finds_the_words_and_boxes_stay_inside(detector: ov.CompiledModel) -> None:
    found = detector(white())
    boxes, masks = found["boxes"], found["masks"]
    assert len(boxes) == len(WORDS)
    assert (found["labels"] == 0).all()
    assert boxes[:, :4].min() >= 0 and boxes[:, 2].max() <= 1600 and boxes[:, 3].max() <= 960
    assert (boxes[:, 4] > 0.99).all()
    for word in WORDS[:3]:
        near = int(np.abs(boxes[:, :2] - word.quad.min(0)).sum(1).argmin())
        np.testing.assert_allclose(
            boxes[near, :4], [*word.quad.min(0), *word.quad.max(0)], atol=0.5
        )
        polygon = mask_polygon(masks[near], tuple(boxes[near, :4]))
        quad = np.array(polygon, np.float32).reshape(4, 2)
        assert detector_scores.quad_iou(quad, word.quad) > 0.9


def test_the_graph_takes_other_shapes() -> None:
    """The same words in the corner that all shapes have, found alike by the reshaped graph."""
    words = [w for w in WORDS if w.quad[:, 0].max() < 920 and w.quad[:, 1].max() < 920]

    class ByImage(torch.nn.Module):
        """Says what the targets want in the maps' top left, as large as the image demands."""

        def __init__(self) -> None:
            super().__init__()
            target = torch.from_numpy(target_maps(words, 960))[None]
            maps = torch.full((1, MAP_CHANNELS, 240, 240), -8.0)
            maps[:, 0] = target[:, 0] * 16
            maps[:, 1:5] = torch.log(target[:, 2:6].clamp(min=0.3) / 16)
            maps[:, 5:7] = target[:, 6:8]
            self.register_buffer("maps", maps)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.avg_pool2d(image.mean(1, keepdim=True), 4) * 0
            rest = (x.shape[3] - 240, x.shape[2] - 240)
            shift = torch.tensor([8.0] + [0.0] * (MAP_CHANNELS - 1)).view(1, -1, 1, 1)
            return torch.nn.functional.pad(self.maps, (0, rest[0], 0, rest[1])) + x - shift

    model = assemble_detector(convert_trunk(ByImage()), 0.3)
    boxes = []
    for width, height in (*INPUT_SHAPES, (960, 960)):
        shape = (1, 3, height * 3 // 2, width)
        model.reshape(list(shape))
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = compiled(np.full(shape, 255, np.uint8))
        boxes.append(found["boxes"])
        assert found["text_features"].shape[0] == len(words) > 1
    for other in boxes[1:]:
        np.testing.assert_allclose(other, boxes[0], atol=1e-3)


def test_features_are_the_readers_own_rectification(detector: ov.CompiledModel) -> None:
    image = np.random.default_rng(0).integers(0, 40, (960, 1600, 3)).astype(np.uint8)
    image = 255 - cv2.GaussianBlur(image, (0, 0), 2)
    found = detector(pyramid(image)[None])
    boxes = found["boxes"][:, :4]
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32))
    stem_map = Stem()(planes)
    for word in WORDS[:3]:
        near = int(np.abs(boxes[:, :2] - word.quad.min(0)).sum(1).argmin())
        expected = planar_features(stem_map, torch.tensor(word.quad[None]))
        # boxes agree to a fraction of a pixel, so smooth images give nearly the same features
        assert np.abs(found["text_features"][near] - expected[0].numpy()).mean() < 1.0


def test_the_planar_forms_equal_the_readers_own() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.uniform(0, 255, (1, 3, 96, 160)).astype(np.float32))
    stem_map = Stem()(image)
    quads = [
        datasets.rect_corners(rng.uniform(0, 160, 2), rng.uniform((8, 5), (150, 90)), angle)
        for angle in rng.uniform(-180, 180, 20)
    ]
    expected = text_features(stem_map, torch.tensor(np.stack(quads)), torch.zeros(20))
    actual = planar_features(stem_map, torch.tensor(np.stack(quads)), enlargement=1.0)
    torch.testing.assert_close(actual, expected, atol=0.1, rtol=0)


def test_the_pyramid_is_the_readers_own_but_for_rounding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8)
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32))
    own = Stem()(planes)[0].numpy()
    packed = pyramid(image).astype(np.float32)
    assert packed.shape == own.shape
    assert np.abs(packed - own).max() <= 1.5  # three times rounded by at most a half
    assert (packed[:, :96] == own[:, :96]).all()


class Longer(torch.nn.Module):
    """Stands in for a refiner: each look lets a word end a fifth of its width further right."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        corners = torch.tensor([[0.0, 0.0], [1.2, 0.0], [1.2, 1.0], [0.0, 1.0]])
        return corners + pixels.mean((1, 2, 3)).reshape(-1, 1, 1) * 0


def test_boxes_masks_and_features_follow_the_refiner() -> None:
    model = assemble_detector(convert_trunk(FixedMaps()), 0.3, convert_refiner(Longer()))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(white())
    word = WORDS[0].quad
    grown = 1.2**LOOKS - 1
    wanted = word + np.array([[0], [grown], [grown], [0]]) * (word[1] - word[0])
    near = int(np.abs(found["boxes"][:, :2] - wanted.min(0)).sum(1).argmin())
    np.testing.assert_allclose(found["boxes"][near, :4], [*wanted.min(0), *wanted.max(0)], atol=0.7)
    polygon = mask_polygon(found["masks"][near], tuple(found["boxes"][near, :4]))
    quad = np.array(polygon, np.float32).reshape(4, 2)
    assert detector_scores.quad_iou(quad, wanted.astype(np.float32)) > 0.9
    assert compiled(np.zeros((1, 3, 1440, 1600), np.uint8))["boxes"].shape == (0, 5)


class Wider(torch.nn.Module):
    """Stands in for a refiner: each look lets a word grow by 0.6 of its width at either end."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        corners = torch.tensor([[-0.6, 0.0], [1.6, 0.0], [1.6, 1.0], [-0.6, 1.0]])
        return corners + pixels.mean((1, 2, 3)).reshape(-1, 1, 1) * 0


def test_parts_that_the_refiner_makes_one_word_leave_the_graph_once() -> None:
    parts = [
        datasets.PhotoWord(datasets.rect_corners((x, 600), (100, 30), 0), "part")
        for x in (600, 720)
    ]
    trunk = convert_trunk(FixedMaps(parts))
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    as_found = ov.Core().compile_model(assemble_detector(trunk.clone(), 0.3), "CPU", options)
    assert len(as_found(white())["boxes"]) == 2
    refined = assemble_detector(trunk, 0.3, convert_refiner(Wider()))
    boxes = ov.Core().compile_model(refined, "CPU", options)(white())["boxes"]
    assert len(boxes) == 1
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(100 * 2.2**LOOKS, rel=0.05)


def test_an_empty_image_gives_no_rows(detector: ov.CompiledModel) -> None:
    found = detector(np.zeros((1, 3, 1440, 1600), np.uint8))
    assert found["boxes"].shape == (0, 5)
    assert found["masks"].shape == (0, 28, 28)
    assert found["text_features"].shape == (0, 64, 28, 28)
    assert len(detector(white())["boxes"]) == len(WORDS)  # and the next one is whole again


def test_the_trunk_is_the_same_in_torch_and_in_the_ir() -> None:
    torch.manual_seed(0)
    trunk = DetectorTrunk().eval()
    compiled = ov.Core().compile_model(
        convert_trunk(trunk), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    image = torch.rand(1, 3, 192, 320) * 255
    with torch.no_grad():
        expected = trunk(image).numpy()
    np.testing.assert_allclose(compiled(image.numpy())["maps"], expected, atol=1e-3)


@pytest.mark.parametrize("angle", [0, 5, 30, 45, 80])
def test_a_mask_cut_at_one_half_gives_the_quad_back(angle: float) -> None:
    quad = datasets.rect_corners((200, 150), (160, 40), angle)
    low, high = quad.min(0), quad.max(0)
    mask = quad_masks(torch.tensor(quad[None]), torch.tensor(low[None]), torch.tensor(high[None]))[
        0
    ]
    assert float(mask.min()) >= 0 and float(mask.max()) <= 1
    back = np.array(mask_polygon(mask.numpy(), (*low, *high)), np.float32).reshape(4, 2)
    assert detector_scores.quad_iou(back, quad) > 0.93


def write_checkpoints(folder: Path) -> tuple[Path, Path]:
    torch.manual_seed(1)
    detector = folder / "detector.pt"
    torch.save({"averaged": DetectorTrunk().state_dict()}, detector)
    size = ReaderSize()
    encoder, decoder = Encoder(size), Decoder(size)
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    save_reader(folder / "reader.npz", size, state)
    return detector, folder / "reader.npz"


def test_export_writes_a_bundle_of_the_contract(tmp_path: Path) -> None:
    detector, reader = write_checkpoints(tmp_path)
    out = tmp_path / "bundle"
    command = ["--detector", str(detector), "--reader", str(reader), "--out", str(out)]
    assert export.main(command) == 0
    bundle = load_bundle(str(out))
    assert set(bundle.spec.precisions) == {"f32"}
    bundle.verify("f32")
    again = detector_weights.load_trunk(out / "weights" / "detector.npz").state_dict()
    for name, value in detector_weights.load_trunk(detector).state_dict().items():
        torch.testing.assert_close(again[name], value, atol=1e-3, rtol=1e-3)
    assert (out / "weights" / "reader.npz").read_bytes() == reader.read_bytes()
    decoder = ov.Core().read_model(out / "decoder.xml")
    assert [(p.any_name, list(p.shape)) for p in decoder.inputs] == [
        ("encoder_outputs", [1, 784, 256]),
        ("prev_symbol", [1]),
        ("prev_hidden", [1, 1, 256]),
    ]
    encoder = ov.Core().read_model(out / "encoder.xml")
    assert list(encoder.input("input").shape) == [1, 64, 28, 28]
    assert list(encoder.output("output").shape) == [1, 256, 28, 28]
    augmentation = ov.Core().read_model(out / "augmentation.xml")
    assert check_augmentation(augmentation, "augmentation.xml") == 2
    assert bundle.spec.augment_between == BETWEEN
    (out / "encoder.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"encoder\.bin is damaged"):
        bundle.verify("f32")


def test_weights_with_free_terms_are_calibrated_on_pictures_of_their_own(tmp_path: Path) -> None:
    detector, reader = write_checkpoints(tmp_path)
    command = ["--detector", str(detector), "--reader", str(reader), "--out", str(tmp_path / "b")]
    command += ["--open", str(tmp_path / "pictures"), "--name", "free"]
    with pytest.raises(UsageError, match="--icdar2015"):
        export.main([*command, "--icdar2015", str(tmp_path)])
    with pytest.raises(SourceError, match="pictures"):
        export.main(command)
    (tmp_path / "pictures" / "images").mkdir(parents=True)
    (tmp_path / "pictures" / "gt").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = rng.integers(0, 255, (96, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / "images" / f"img_{number}.png"), picture)
        gt = tmp_path / "pictures" / "gt" / f"gt_img_{number}.txt"
        gt.write_text("40,40,90,40,90,60,40,60,word\n")
    assert export.main(command) == 0
    spec = load_bundle(str(tmp_path / "b")).spec
    assert set(spec.precisions) == {"f32", "int8"} and spec.name == "free"
    assert not spec.research_only and "research" not in spec.licence
    assert spec.text_threshold == export.OPEN_THRESHOLD and spec.accuracy == {}


def test_export_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--work, or both"):
        export.main(["--out", str(tmp_path)])
    torch.save({"averaged": {"a": torch.zeros(1)}}, tmp_path / "odd.pt")
    with pytest.raises(UsageError, match="another network"):
        detector_weights.load_trunk(tmp_path / "odd.pt")


def test_thresholds_are_chosen_for_spotting_and_figures_are_per_cent() -> None:
    square = (0.0, 0.0, 40.0, 0.0, 40.0, 20.0, 0.0, 20.0)
    beside = tuple(v + 100 for v in square)
    truth = {"img_1": (GtWord(square, "word"),)}
    read = {
        "img_1": [
            Predicted(square, "word", 0.6, 0.7),
            Predicted(beside, "junk", 0.2, 0.7),
            Predicted(beside, "", 0.9, 0.9),  # found, not read
        ]
    }
    figures = measure_bundle.operating_figures(truth, read)
    assert figures.spotting_hmean == 100.0
    assert 0.2 < figures.text_threshold <= 0.6
    assert figures.detection_recall == 100.0
    strict = measure_bundle.OperatingFigures(0.5, 0.9, *[0.0] * 7)
    assert measure_bundle.operating_figures(truth, read, strict).spotting_recall == 0.0


def test_pages_have_a_say_in_the_thresholds() -> None:
    square = (0.0, 0.0, 40.0, 0.0, 40.0, 20.0, 0.0, 20.0)
    truth = {"img_1": (GtWord(square, "word"),)}
    read = {"img_1": [Predicted(square, "word", 0.6, 0.9)]}
    figures = measure_bundle.operating_figures(
        truth, read, of_pages=lambda low, lowest: 1.0 if low < 0.5 else 0.2
    )
    assert figures.spotting_hmean == 100.0 and figures.pages_f == 100.0
    assert figures.detection_threshold < 0.5


def test_a_decoder_is_softer_at_a_temperature_and_says_the_same() -> None:
    decoder = Decoder(ReaderSize()).eval()
    rng = np.random.default_rng(0)
    inputs = {
        "encoder_outputs": rng.normal(size=(1, 784, 256)).astype(np.float32),
        "prev_symbol": np.array([0], np.int64),
        "prev_hidden": np.zeros((1, 1, 256), np.float32),
    }
    plain, soft = (
        ov.Core().compile_model(export.convert_decoder(decoder, t), "CPU")(inputs)["output"]
        for t in (1.0, 2.0)
    )
    np.testing.assert_allclose(soft * 2, plain, rtol=1e-2, atol=1e-3)
