"""Writes the published architecture with seeded random weights as a bundle.

    python -m jobs.bench.stand_in DIR --boxes 10 --precision int8

For tests and benchmarks where the published weights cannot be had: everything costs what it costs
there, and the number of boxes and the length of words are chosen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from jobs.bench.full_size.detector import MAX_ROWS, build_detector
from jobs.bench.full_size.reader import build_decoder, build_encoder
from textspot_ray.errors import ExitCode, MissingExtraError, TextspotError, UsageError
from textspot_ray.spotting.bundle import PARTS, BundleSpec, describe_files, write_spec
from textspot_ray.spotting.composite.contract import INPUT_HEIGHT, INPUT_WIDTH

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_CALIBRATION_IMAGES = 3  # random weights have nothing to lose


def write_stand_in(
    folder: Path,
    *,
    boxes: int = 10,
    symbols: int = 7,
    signature: str = "image",
    dynamic_rows: bool = False,
    precision: str = "f32",
    seed: int = 0,
) -> Path:
    """Write the bundle.

    Args:
        folder: Made if need be.
        boxes: Words found on any image, 0 to 100.
        symbols: Decoder steps a word (the bundle's step limit; words do not end by themselves).
        signature: ``image`` or ``im_data``.
        dynamic_rows: Only the rows found instead of 100 padded ones.
        precision: f32, or int8 for both (int8 quantises detector and encoder; needs NNCF).
        seed: Of the weights.

    Returns:
        The folder.

    Raises:
        UsageError: A number is out of range, or the folder cannot be made.
        MissingExtraError: int8 without NNCF.
    """
    if not 0 <= boxes <= MAX_ROWS or symbols < 1:
        raise UsageError(f"--boxes must be 0 to {MAX_ROWS} and --symbols at least 1")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"cannot write to {folder}: {exc.strerror}") from exc
    detector = build_detector(
        boxes=boxes, signature=signature, dynamic_rows=dynamic_rows, seed=seed
    ).model
    models = {
        "detector": detector,
        "encoder": build_encoder(seed=seed).model,
        "decoder": build_decoder(seed=seed).model,
    }
    precisions = {"f32": _save(folder, "f32", models)}
    if precision == "int8":
        models["detector"] = _quantised(detector, _photos(signature, seed))
        models["encoder"] = _quantised(models["encoder"], _features(seed))
        precisions["int8"] = _save(folder, "int8", models)
    spec = BundleSpec(
        name="stand-in",
        version=f"boxes {boxes}, seed {seed}",
        alphabet=ALPHABET,
        precisions=precisions,
        max_steps=symbols,
        default_precision=precision,
        licence="Apache-2.0",
        provenance={
            "made_by": "python -m jobs.bench.stand_in",
            "weights": "random; it reads nothing",
        },
    )
    write_spec(folder, spec)
    return folder


def _save(folder: Path, precision: str, models: dict[str, Any]) -> Any:
    (folder / precision).mkdir(exist_ok=True)
    for part, model in models.items():
        ov.save_model(model, str(folder / precision / f"{part}.xml"), compress_to_fp16=False)
    names = {p: (f"{precision}/{p}.xml", f"{precision}/{p}.bin") for p in PARTS}
    return describe_files(folder, names)


def _quantised(model: Any, samples: list[Any]) -> Any:
    try:
        import nncf
    except ImportError as exc:
        raise MissingExtraError("quantising to int8", "quantize") from exc
    dataset = nncf.Dataset(samples)
    return nncf.quantize(model.clone(), dataset, subset_size=len(samples))


def _photos(signature: str, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    shape = (1, 3, INPUT_HEIGHT, INPUT_WIDTH)
    photos = [rng.integers(0, 256, shape).astype(np.float32) for _ in range(_CALIBRATION_IMAGES)]
    if signature == "image":
        return list(photos)
    info = np.array([[INPUT_HEIGHT, INPUT_WIDTH, 1]], np.float32)
    return [{"im_data": photo, "im_info": info} for photo in photos]


def _features(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, 64, 28, 28)).astype(np.float32) for _ in range(8)]


def main(argv: Sequence[str] | None = None) -> int:
    """Write a stand-in as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.stand_in", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--boxes", type=int, default=10, metavar="N", help="words per image")
    parser.add_argument(
        "--symbols", type=int, default=7, metavar="N", help="decoder steps per word"
    )
    parser.add_argument("--signature", choices=("image", "im_data"), default="image")
    parser.add_argument("--rows", choices=("100", "dynamic"), default="100")
    parser.add_argument("--precision", choices=("f32", "int8"), default="f32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        write_stand_in(
            args.folder,
            boxes=args.boxes,
            symbols=args.symbols,
            signature=args.signature,
            dynamic_rows=args.rows == "dynamic",
            precision=args.precision,
            seed=args.seed,
        )
    except TextspotError as exc:
        print(f"stand_in: {exc}", file=sys.stderr)
        return exc.exit_code
    print(f"wrote a stand-in of the published size to {args.folder}: random weights, reads nothing")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
