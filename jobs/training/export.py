# mypy: disable-error-code="misc"
"""Trained weights to a bundle folder: three IRs in FP16, INT8 ones, ``bundle.yaml``.

python -m jobs.training export --work DIR --icdar2015 DIR --out textspot_ray/models/embedded

Thresholds are chosen, and the figures in ``bundle.yaml`` measured, on the ICDAR2015 photos that
were kept out of training; INT8 is calibrated on training photos alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import torch
from torch import nn

from jobs.training.calibration import best_temperature, draw_reliability
from jobs.training.data import datasets
from jobs.training.data.datasets import ByteArray, Photo
from jobs.training.detector.graph import (
    INPUT_SHAPE,
    RefinerPatches,
    assemble_detector,
    convert,
    convert_refiner,
    convert_trunk,
)
from jobs.training.detector.network import ENLARGEMENT, INPUT_SHAPES, MAX_STRETCH
from jobs.training.detector.selection import MAX_WORDS
from jobs.training.detector.train import PAGE_SETS
from jobs.training.detector.weights import load_trunk, save_weights
from jobs.training.measure import (
    OperatingFigures,
    detect_all,
    judge_all,
    measure_read,
    read_all,
    reliability_of,
)
from jobs.training.reader.augmentation import BETWEEN, Augmentation
from jobs.training.reader.network import ALPHABET, MAX_SYMBOLS, Decoder, Encoder, load_reader
from jobs.training.refiner.network import load_refiner
from textspot_ray.errors import MissingExtraError, UsageError
from textspot_ray.spotting.bundle import AUTO, BundleSpec, ModelFiles, describe_files, write_spec
from textspot_ray.spotting.composite.detector import pyramid
from textspot_ray.spotting.int8 import outside_trunk
from textspot_ray.spotting.runtime import shared_core

GRAPH_THRESHOLD = 0.3
# Words lower than this are read better after a cut (see the model card for what it brought).
ZOOM_BELOW_PX = 14.0
# Higher words are looked at in a coarser pass. Rendered clean scenes and validation photos: 48 read
# more than never, 40 or 64 did, by a few words.
SHRINK_ABOVE_PX = 48.0
READ_BATCH = 8  # 16 take as long a word in the encoder, and 4 % off a receipt in the decoder
CALIBRATION_PHOTOS = 36
CALIBRATION_PAGES = 16
CALIBRATION_WORDS = 300
FEATURES_SHAPE = (1, 64, 28, 28)
# How much likelier than other strings listed words are taken to be, and below which confidence:
# on validation photos and pages 4.5, 8 and 15 are as good as each other, 0.97 as 0.9.
DICTIONARY_ODDS, DICTIONARY_BELOW = 8.0, 0.9
LICENCE = "Code: Apache-2.0. Weights: trained on research-only data sets, see MODEL_CARD.md"
OPEN_LICENCE = "Apache-2.0, code and weights; what they were trained on: see MODEL_CARD.md"
# Of weights with free terms: they are those of the other bundle, and not chosen anew, which would
# take the same pictures for research.
OPEN_TEMPERATURE = 1.2
OPEN_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Weights:
    """What a bundle is made of.

    Attributes:
        detector: Checkpoint or weights file of the detector.
        reader: The reader's .npz.
        refiner: The refiner's .npz, or None for rectangles as the trunk gives them.
    """

    detector: Path
    reader: Path
    refiner: Path | None = None


def convert_encoder(encoder: Encoder) -> ov.Model:
    """The contract's encoder: ``input`` [1, 64, 28, 28] to ``output`` [1, 256, 28, 28]."""
    example = torch.zeros(FEATURES_SHAPE)
    return convert(encoder, [example], [FEATURES_SHAPE], ["input"], ["output"])


def convert_augmentation() -> ov.Model:
    """``features`` [1, 64, 28, 28] to ``further`` [N, 64, 28, 28], see `reader.augmentation`."""
    example = torch.zeros(FEATURES_SHAPE)
    return convert(Augmentation(), [example], [FEATURES_SHAPE], ["features"], ["further"])


class _Step(nn.Module):
    """The decoder with the contract's argument order."""

    def __init__(self, decoder: Decoder, temperature: float) -> None:
        super().__init__()
        self.decoder = decoder
        self.temperature = temperature

    def forward(
        self, encoder_outputs: torch.Tensor, prev_symbol: torch.Tensor, prev_hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits, hidden = self.decoder(encoder_outputs, prev_symbol, prev_hidden)
        return logits / self.temperature, hidden


def convert_decoder(decoder: Decoder, temperature: float = 1.0) -> ov.Model:
    """The contract's decoder; ``prev_symbol`` is int64 [1].

    Args:
        decoder: Trained.
        temperature: Divides the logits: softer confidences above 1, the same symbols.
    """
    shapes = ((1, 784, 256), (1,), (1, 1, decoder.hidden))
    example = (
        torch.zeros(shapes[0]),
        torch.zeros(shapes[1], dtype=torch.int64),
        torch.zeros(shapes[2]),
    )
    names = ["encoder_outputs", "prev_symbol", "prev_hidden"]
    return convert(
        _Step(decoder, temperature), list(example), list(shapes), names, ["output", "hidden"]
    )


def quantise(model: ov.Model, samples: Sequence[np.ndarray[Any, Any]], keep: Sequence[str]) -> Any:
    """Post-training INT8 by NNCF.

    Args:
        model: With one input.
        samples: Calibration inputs, from training data.
        keep: Friendly names of operations that stay in floating point.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    try:
        import nncf
    except ImportError as exc:
        raise MissingExtraError("INT8 export", "train") from exc
    scope = nncf.IgnoredScope(names=list(keep)) if keep else None
    return nncf.quantize(
        model,
        nncf.Dataset(list(samples)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        fast_bias_correction=True,
        ignored_scope=scope,
    )


def convolutions(model: ov.Model) -> list[str]:
    """Friendly names of a model's convolutions, in order of execution."""
    return [
        n.get_friendly_name() for n in model.get_ordered_ops() if n.get_type_name() == "Convolution"
    ]


def canvas(image: ByteArray) -> ByteArray:
    """Fit an image [H, W, 3] into the landscape input [960, 1600, 3], zeros beside it.

    A standing image is turned: INT8 needs to see the picture's values, not their direction.
    """
    if image.shape[0] > image.shape[1]:
        image = np.ascontiguousarray(np.rot90(image))
    height, width = image.shape[:2]
    scale = min(INPUT_SHAPE[3] / width, INPUT_SHAPE[2] / height)
    size = (min(round(width * scale), INPUT_SHAPE[3]), min(round(height * scale), INPUT_SHAPE[2]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = np.zeros((INPUT_SHAPE[2], INPUT_SHAPE[3], 3), np.uint8)
    fitted[: size[1], : size[0]] = cv2.resize(image, size, interpolation=how)
    return fitted


def spread(photos: Sequence[Photo], count: int) -> Iterator[ByteArray]:
    """Canvases of photos spread over a set."""
    step = max(1, len(photos) // count)
    for photo in photos[::step][:count]:
        yield canvas(photo.pixels())


def photo_inputs(photos: Sequence[Photo], count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Inputs of the trunk, [1, 3, 960, 1600] float32, of photos spread over a set."""
    for image in spread(photos, count):
        yield np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def word_inputs(
    detector: ov.Model, photos: Sequence[Photo], count: int
) -> list[np.ndarray[Any, Any]]:
    """Encoder inputs as the detector cuts them from photos."""
    compiled = shared_core().compile_model(detector, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    features: list[np.ndarray[Any, Any]] = []
    for image in spread(photos, len(photos)):
        rows = compiled(pyramid(image)[None])["text_features"]
        features += [np.array(row[None]) for row in rows[:8]]
        if len(features) >= count:
            break
    return features[:count]


def refiner_inputs(photos: Sequence[Photo], count: int) -> list[np.ndarray[Any, Any]]:
    """Refiner inputs: words of photos at their true places, up to eight a photo."""
    patches: list[np.ndarray[Any, Any]] = []
    for photo in photos:
        image = photo.pixels()
        words = [w.quad for w in photo.words if w.legible][:8]
        if image.shape[0] > image.shape[1] or not words:
            continue  # `canvas` would turn it
        scale = min(INPUT_SHAPE[3] / image.shape[1], INPUT_SHAPE[2] / image.shape[0])
        stem_map = torch.from_numpy(pyramid(canvas(image))[None]).float()
        with torch.no_grad():
            seen = RefinerPatches()(torch.tensor(np.stack(words) * scale).float(), stem_map)
        patches += [row[None] for row in seen.numpy()]
    return patches[:: max(1, len(patches) // count)][:count]


def export(
    weights: Weights,
    out: Path,
    *,
    icdar2015: Path | None,
    data: Path | None = None,
    int8: bool = True,
    int8_encoder: bool = False,
    version: str | None = None,
    name: str = "embedded",
    measure_command: str = "",
    calibration: Path | None = None,
) -> BundleSpec:
    """Write a bundle.

    Args:
        weights: What to export.
        out: The bundle's folder; created as needed.
        icdar2015: Folder of the training photos; without it there is no INT8, thresholds are the
            defaults and no figures are measured.
        data: Folder of further data sets: INT8 is calibrated on their training pages too, and
            thresholds are chosen on those kept aside for validation.
        int8: Whether to write an INT8 detector.
        int8_encoder: Whether the encoder becomes INT8 too: 1.2 ms a word instead of 3.2, for next
            to no words. Its first convolution, what levels the pixels before it, and the layer that
            is told the word's shape keep their precision: with that levelling in 8 bits 32 of 417
            words at true quads were lost, with the shape 8 of 466 found ones.
        version: Default: today's date.
        name: The bundle's name.
        measure_command: Stored with the figures.
        calibration: Folder of pictures with words (``images/``, ``gt/``) that INT8 is calibrated on
            instead of those of `icdar2015` and `data`, which then must be None: for weights with
            free terms. Temperature and thresholds are fixed, and no figures are measured.

    Returns:
        What was written to ``bundle.yaml``.
    """
    if calibration and (icdar2015 or data):
        raise UsageError("--open DIR: leave --icdar2015 and --data out, their terms are not free")
    out.mkdir(parents=True, exist_ok=True)
    loaded = load_trunk(weights.detector)
    trunk = convert_trunk(loaded)
    encoder, decoder = load_reader(weights.reader)
    encoder_model, decoder_model = convert_encoder(encoder), convert_decoder(decoder)
    # assembling takes the trunk's graph over, so INT8 works on a copy
    quantisable = trunk.clone()
    refiner = convert_refiner(load_refiner(weights.refiner)) if weights.refiner else None
    detector_model = assemble_detector(trunk, GRAPH_THRESHOLD, refiner)
    for stale in [*out.glob("*.xml"), *out.glob("*.bin")]:
        stale.unlink()
    save(detector_model, out / "detector.xml")
    save(encoder_model, out / "encoder.xml")
    save(decoder_model, out / "decoder.xml")
    save(convert_augmentation(), out / "augmentation.xml")
    # to train on from: --init weights/detector.npz, and the reader's own option
    (out / "weights").mkdir(exist_ok=True)
    save_weights(loaded.state_dict(), out / "weights" / "detector.npz")
    keep_weights(weights.reader, out / "weights" / "reader.npz")
    if weights.refiner:
        keep_weights(weights.refiner, out / "weights" / "refiner.npz")
    parts = ("detector", "encoder", "decoder", "augmentation")
    plain = {p: (f"{p}.xml", f"{p}.bin") for p in parts}
    named = {"f32": plain}
    if int8 and (icdar2015 or calibration):
        photos = (
            datasets.icdar2015_training(icdar2015)
            if icdar2015
            else datasets.pages(calibration or Path())
        )
        ops = convolutions(quantisable)
        pages = [
            page
            for name in PAGE_SETS
            if data and (data / name).is_dir()
            for page in datasets.pages(data / name)
        ]
        shown = list(photo_inputs(photos, CALIBRATION_PHOTOS))
        shown += photo_inputs(pages, CALIBRATION_PAGES) if pages else []
        small = quantise(quantisable, shown, ops[-1:])
        if refiner is not None:
            patches = refiner_inputs([*photos[::12], *pages[::8]], CALIBRATION_WORDS)
            keep = [*outside_trunk(refiner), *convolutions(refiner)[:1]]
            refiner = quantise(refiner, patches, keep)
        save(assemble_detector(small, GRAPH_THRESHOLD, refiner), out / "detector-int8.xml")
        names = plain | {"detector": ("detector-int8.xml", "detector-int8.bin")}
        if int8_encoder:
            mixed = [p for pair in zip(photos, pages, strict=False) for p in pair] or photos
            words = word_inputs(detector_model, mixed, CALIBRATION_WORDS)
            if not words:
                raise UsageError(f"{weights.detector}: finds no words to calibrate with; train on")
            keep = [*outside_trunk(encoder_model), *convolutions(encoder_model)[:1]]
            save(quantise(encoder_model, words, keep), out / "encoder-int8.xml")
            names |= {"encoder": ("encoder-int8.xml", "encoder-int8.bin")}
        named["int8"] = names

    def described() -> dict[str, ModelFiles]:
        return {precision: describe_files(out, names) for precision, names in named.items()}

    def save_decoder(temperature: float) -> dict[str, ModelFiles]:
        save(convert_decoder(decoder, temperature), out / "decoder.xml")
        return described()

    spec = BundleSpec(
        name=name,
        version=version or dt.datetime.now(dt.UTC).date().isoformat(),
        alphabet=ALPHABET,
        precisions=described(),
        max_steps=MAX_SYMBOLS,
        detection_threshold=0.5,
        graph_threshold=GRAPH_THRESHOLD,
        resize="keep_aspect",
        interpolation="area",
        shapes=INPUT_SHAPES,
        enlargement=ENLARGEMENT,
        pyramid=True,
        max_stretch=MAX_STRETCH,
        max_rows=MAX_WORDS,
        zoom_below=ZOOM_BELOW_PX,
        shrink_above=SHRINK_ABOVE_PX,
        read_batch=READ_BATCH,
        augment_between=BETWEEN,
        dictionary="english",
        number_formats="plates",
        dictionary_odds=DICTIONARY_ODDS,
        dictionary_below=DICTIONARY_BELOW,
        default_precision=AUTO if "int8" in named else "f32",
        bf16=False,
        research_only=calibration is None,
        licence=OPEN_LICENCE if calibration else LICENCE,
        provenance={
            "made_by": "jobs.training.export",
            "detector_weights": datasets.file_sha256(weights.detector),
            "reader_weights": datasets.file_sha256(weights.reader),
            "refiner_weights": datasets.file_sha256(weights.refiner) if weights.refiner else "",
            "frameworks": f"torch {torch.__version__}, openvino {ov.__version__}",
        },
    )
    if calibration:
        provenance = {**spec.provenance, "temperature": OPEN_TEMPERATURE}
        files = save_decoder(OPEN_TEMPERATURE)
        spec = replace(spec, precisions=files, provenance=provenance, text_threshold=OPEN_THRESHOLD)
    write_spec(out, spec)
    if icdar2015 is not None:
        pages = validation_pages(data)
        spec = with_figures(out, spec, icdar2015, pages, measure_command, save_decoder)
        write_spec(out, spec)
    return spec


def keep_weights(source: Path, kept: Path) -> None:
    """Copy weights beside the bundle, unless they come from there."""
    if source.resolve() != kept.resolve():
        shutil.copyfile(source, kept)


def with_figures(
    out: Path,
    spec: BundleSpec,
    icdar2015: Path,
    pages: Sequence[Photo],
    command: str,
    save_decoder: Callable[[float], Mapping[str, ModelFiles]],
) -> BundleSpec:
    """Choose temperature and thresholds on validation pictures and note the figures they give.

    Args:
        out: The bundle, written.
        spec: Its description.
        icdar2015: Folder of the photos, of which 801-900 are used.
        pages: Documents kept aside for validation; may be none.
        command: Noted beside the figures.
        save_decoder: Writes the decoder at a temperature and describes the bundle's files anew.
    """
    photos = datasets.icdar2015_validation(icdar2015)
    figures: dict[str, OperatingFigures] = {}
    chosen: OperatingFigures | None = None
    # thresholds are those of the precision that is run by default where it is fast
    for precision in sorted(spec.precisions, reverse=True):
        seen = detect_all(out, precision, photos, pages)
        if chosen is None:
            plain = read_all(out, precision, seen, dictionary=False)
            temperature = best_temperature(judge_all(seen, plain))
            files = save_decoder(temperature)
            provenance = {**spec.provenance, "temperature": temperature}
            spec = replace(spec, precisions=files, provenance=provenance)
            write_spec(out, spec)
        read = read_all(out, precision, seen)
        figures[precision] = measure_read(seen, read, chosen)
        if chosen is None:
            draw_reliability(out / "reliability.png", reliability_of(seen, read))
        chosen = chosen or figures[precision]
    assert chosen is not None
    measured_on = "ICDAR2015 training photos 801-900"
    if pages:
        measured_on += f" and {len(pages)} pages kept aside for validation"
    return replace(
        spec,
        detection_threshold=chosen.detection_threshold,
        text_threshold=chosen.text_threshold,
        accuracy={
            "set": f"{measured_on}: not trained on; thresholds and temperature chosen on them",
            "command": command,
            **{precision: f.as_dict() for precision, f in figures.items()},
        },
    )


def validation_pages(data: Path | None) -> list[Photo]:
    """Documents below ``--data`` that are kept aside for validation."""
    return [
        page
        for name in PAGE_SETS
        if data and (data / name).is_dir()
        for page in datasets.pages(data / name, "validate")
    ]


def save(model: ov.Model, path: Path) -> None:
    """Write an IR with FP16 weights; what must not be rounded is kept by OpenVINO itself."""
    ov.save_model(model, str(path), compress_to_fp16=True)


def arguments() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="export", description="Weights to a bundle folder.")
    add = parser.add_argument
    add("--work", type=Path, help="folder with detector/best.pt, reader/reader.npz, refiner/")
    add("--detector", type=Path, help="detector checkpoint, instead of the one in --work")
    add("--reader", type=Path, help="reader weights (.npz), instead of those in --work")
    add("--refiner", type=Path, help="refiner weights (.npz), instead of those in --work")
    add("--out", type=Path, required=True, help="the bundle's folder")
    add("--icdar2015", type=Path, help="folder with images/ and gt/: calibration, thresholds")
    add("--data", type=Path, help="folder of further data sets: documents to calibrate, choose by")
    add(
        "--open",
        type=Path,
        metavar="DIR",
        help="weights with free terms: calibrate on the pictures in DIR (images/, gt/) instead",
    )
    add("--no-int8", action="store_true", help="leave the INT8 files out")
    add("--int8-encoder", action="store_true", help="INT8 for the encoder too")
    add("--version")
    add("--name", default="embedded")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    args = arguments().parse_args(argv)
    detector, reader, refiner = args.detector, args.reader, args.refiner
    if args.work is not None:
        beside = args.work / "refiner" / "refiner.npz"
        refiner = refiner or (beside if beside.is_file() else None)
        detector = detector or args.work / "detector" / "best.pt"
        reader = reader or args.work / "reader" / "reader.npz"
    if detector is None or reader is None:
        raise UsageError("give --work, or both --detector and --reader")
    spec = export(
        Weights(detector, reader, refiner),
        args.out,
        icdar2015=args.icdar2015,
        data=args.data,
        int8=not args.no_int8,
        int8_encoder=args.int8_encoder,
        version=args.version,
        name=args.name,
        calibration=args.open,
        measure_command="python -m jobs.training export --work DIR --icdar2015 DIR --data DIR "
        "--out DIR --int8-encoder",
    )
    print(f"{args.out}: {spec.name} {spec.version}, precisions {', '.join(spec.precisions)}")
    for precision, figures in spec.accuracy.items():
        print(f"  {precision}: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
