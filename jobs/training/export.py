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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import torch
from torch import nn

from jobs.training.data import datasets
from jobs.training.data.datasets import ByteArray, Photo
from jobs.training.detector.graph import INPUT_SHAPE, assemble_detector, convert, convert_trunk
from jobs.training.detector.weights import load_trunk, save_weights
from jobs.training.measure import OperatingFigures, measure_bundle
from jobs.training.reader.network import ALPHABET, MAX_SYMBOLS, Decoder, Encoder, load_reader
from jobs.training.refiner.network import load_refiner
from textspot_ray.errors import MissingExtraError, UsageError
from textspot_ray.spotting.bundle import BundleSpec, ModelFiles, describe_files, write_spec
from textspot_ray.spotting.quantization_scope import outside_trunk
from textspot_ray.spotting.runtime import shared_core

GRAPH_THRESHOLD = 0.3
CALIBRATION_PHOTOS = 48
CALIBRATION_WORDS = 300
FEATURES_SHAPE = (1, 64, 28, 28)
LICENCE = "Code: Apache-2.0. Weights: trained on research-only data sets, see MODEL_CARD.md"


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


class _Step(nn.Module):
    """The decoder with the contract's argument order."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, encoder_outputs: torch.Tensor, prev_symbol: torch.Tensor, prev_hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits, hidden = self.decoder(encoder_outputs, prev_symbol, prev_hidden)
        return logits, hidden


def convert_decoder(decoder: Decoder) -> ov.Model:
    """The contract's decoder; ``prev_symbol`` is int64 [1]."""
    shapes = ((1, 784, 256), (1,), (1, 1, decoder.hidden))
    example = (
        torch.zeros(shapes[0]),
        torch.zeros(shapes[1], dtype=torch.int64),
        torch.zeros(shapes[2]),
    )
    names = ["encoder_outputs", "prev_symbol", "prev_hidden"]
    return convert(_Step(decoder), list(example), list(shapes), names, ["output", "hidden"])


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


def to_input(image: ByteArray) -> np.ndarray[Any, Any]:
    """Stretch an image [H, W, 3] to the detector's input [1, 3, 768, 1280] float32."""
    resized = cv2.resize(image, INPUT_SHAPE[:1:-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1)[None], np.float32)


def photo_inputs(photos: Sequence[Photo], count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Detector inputs [1, 3, 768, 1280] of photos spread over a set."""
    step = max(1, len(photos) // count)
    for photo in photos[::step][:count]:
        yield to_input(photo.pixels())


def word_inputs(
    detector: ov.Model, photos: Sequence[Photo], count: int
) -> list[np.ndarray[Any, Any]]:
    """Encoder inputs as the detector cuts them from photos."""
    compiled = shared_core().compile_model(detector, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    features: list[np.ndarray[Any, Any]] = []
    for image in photo_inputs(photos, len(photos)):
        rows = compiled(image)["text_features"]
        features += [np.array(row[None]) for row in rows[:8]]
        if len(features) >= count:
            break
    return features[:count]


def export(
    weights: Weights,
    out: Path,
    *,
    icdar2015: Path | None,
    int8: bool = True,
    int8_encoder: bool = False,
    version: str | None = None,
    name: str = "embedded",
    measure_command: str = "",
) -> BundleSpec:
    """Write a bundle.

    Args:
        weights: What to export.
        out: The bundle's folder; created as needed.
        icdar2015: Folder of the training photos; without it there is no INT8, thresholds are the
            defaults and no figures are measured.
        int8: Whether to write an INT8 detector.
        int8_encoder: Whether the encoder becomes INT8 too: twice as fast, for two of 417 words at
            true quads. Its first convolution and what levels the pixels before it keep their
            precision: with that levelling in 8 bits 32 of these words were lost.
        version: Default: today's date.
        name: The bundle's name.
        measure_command: Stored with the figures.

    Returns:
        What was written to ``bundle.yaml``.
    """
    out.mkdir(parents=True, exist_ok=True)
    loaded = load_trunk(weights.detector)
    trunk = convert_trunk(loaded)
    encoder, decoder = load_reader(weights.reader)
    encoder_model, decoder_model = convert_encoder(encoder), convert_decoder(decoder)
    # assembling takes the trunk's graph over, so INT8 works on a copy
    quantisable = trunk.clone()
    refiner = load_refiner(weights.refiner) if weights.refiner else None
    detector_model = assemble_detector(trunk, GRAPH_THRESHOLD, refiner)
    for stale in [*out.glob("*.xml"), *out.glob("*.bin")]:
        stale.unlink()
    save(detector_model, out / "detector.xml")
    save(encoder_model, out / "encoder.xml")
    save(decoder_model, out / "decoder.xml")
    # to train on from: --init weights/detector.npz, and the reader's own option
    (out / "weights").mkdir(exist_ok=True)
    save_weights(loaded.state_dict(), out / "weights" / "detector.npz")
    keep_weights(weights.reader, out / "weights" / "reader.npz")
    if weights.refiner:
        keep_weights(weights.refiner, out / "weights" / "refiner.npz")
    plain = {p: (f"{p}.xml", f"{p}.bin") for p in ("detector", "encoder", "decoder")}
    precisions: dict[str, ModelFiles] = {"f32": describe_files(out, plain)}
    if int8 and icdar2015 is not None:
        photos = datasets.icdar2015_training(icdar2015)
        ops = convolutions(quantisable)
        small = quantise(quantisable, list(photo_inputs(photos, CALIBRATION_PHOTOS)), ops[-1:])
        save(assemble_detector(small, GRAPH_THRESHOLD, refiner), out / "detector-int8.xml")
        names = plain | {"detector": ("detector-int8.xml", "detector-int8.bin")}
        if int8_encoder:
            words = word_inputs(detector_model, photos, CALIBRATION_WORDS)
            if not words:
                raise UsageError(f"{weights.detector}: finds no words to calibrate with; train on")
            keep = [*outside_trunk(encoder_model), *convolutions(encoder_model)[:1]]
            save(quantise(encoder_model, words, keep), out / "encoder-int8.xml")
            names |= {"encoder": ("encoder-int8.xml", "encoder-int8.bin")}
        precisions["int8"] = describe_files(out, names)
    spec = BundleSpec(
        name=name,
        version=version or dt.datetime.now(dt.UTC).date().isoformat(),
        alphabet=ALPHABET,
        precisions=precisions,
        max_steps=MAX_SYMBOLS,
        detection_threshold=0.5,
        graph_threshold=GRAPH_THRESHOLD,
        licence=LICENCE,
        provenance={
            "made_by": "jobs.training.export",
            "detector_weights": datasets.file_sha256(weights.detector),
            "reader_weights": datasets.file_sha256(weights.reader),
            "refiner_weights": datasets.file_sha256(weights.refiner) if weights.refiner else "",
            "frameworks": f"torch {torch.__version__}, openvino {ov.__version__}",
        },
    )
    write_spec(out, spec)
    if icdar2015 is not None:
        spec = with_figures(out, spec, icdar2015, measure_command)
        write_spec(out, spec)
    return spec


def keep_weights(source: Path, kept: Path) -> None:
    """Copy weights beside the bundle, unless they come from there."""
    if source.resolve() != kept.resolve():
        shutil.copyfile(source, kept)


def with_figures(out: Path, spec: BundleSpec, icdar2015: Path, command: str) -> BundleSpec:
    """Choose the thresholds on the validation photos and note the figures they give there."""
    photos = datasets.icdar2015_validation(icdar2015)
    figures: dict[str, OperatingFigures] = {}
    chosen: OperatingFigures | None = None
    for precision in spec.precisions:
        figures[precision] = measure_bundle(out, precision, photos, chosen)
        chosen = chosen or figures[precision]
    assert chosen is not None
    return replace(
        spec,
        detection_threshold=chosen.detection_threshold,
        text_threshold=chosen.text_threshold,
        accuracy={
            "set": "ICDAR2015 training photos 801-900: not trained on; thresholds chosen on them",
            "command": command,
            **{precision: f.as_dict() for precision, f in figures.items()},
        },
    )


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
        int8=not args.no_int8,
        int8_encoder=args.int8_encoder,
        version=args.version,
        name=args.name,
        measure_command="python -m jobs.training export --work DIR --icdar2015 DIR --out DIR",
    )
    print(f"{args.out}: {spec.name} {spec.version}, precisions {', '.join(spec.precisions)}")
    for precision, figures in spec.accuracy.items():
        print(f"  {precision}: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
