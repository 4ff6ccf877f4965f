"""``textspot models quantize``: an int8 bundle calibrated on the user's own images."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from textspot_ray.commands.table_options import size
from textspot_ray.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from textspot_ray.evaluation.ground_truth import GtWord
    from textspot_ray.records import ImageResult
    from textspot_ray.spotting.quantize import Agreement

_EVERY = 3  # of three images two calibrate and one is held out
_FEWEST = 6


@dataclass(frozen=True, slots=True)
class QuantizeOutcome:
    """Results of the int8 bundle on held-out images.

    Attributes:
        agreement: With the original.
        hmean: Word spotting of original and int8 against ground truth, if there is any.
    """

    agreement: Agreement
    hmean: tuple[float, float] | None

    @property
    def figures(self) -> dict[str, str]:
        """For the bundle's description and the user."""
        a = self.agreement
        shown = {
            "held-out images": str(a.images),
            "boxes as in the original": f"{100 * a.box_agreement:.1f} %",
            "words as in the original": f"{100 * a.word_agreement:.1f} %",
        }
        if self.hmean is not None:
            before, after = (f"{100 * v:.2f} %" for v in self.hmean)
            shown["word spotting hmean"] = f"{after} (original {before})"
        return shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the action's options."""
    parser.add_argument("model", metavar="NAME|DIR", help="a bundle with f32 files")
    parser.add_argument(
        "--calibrate",
        required=True,
        action="append",
        metavar="SOURCE",
        help="images like those to be read: a folder, archive, list, ... (may be repeated)",
    )
    parser.add_argument("--images", type=int, default=200, metavar="N", help="use N (default 200)")
    parser.add_argument("--gt", metavar="PATH", help="ground truth of these images, gt_<image>.txt")
    parser.add_argument(
        "--gt-size", type=size, metavar="WxH", help="image size the gt's coordinates belong to"
    )
    parser.add_argument("--out", metavar="DIR", help="the new bundle (default: NAME-int8)")
    parser.add_argument(
        "--detector-only",
        action="store_true",
        help="leave the recogniser in f32: slower where there is text, but more accurate",
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        default=0.01,
        metavar="X",
        help="refuse to write if hmean falls by more, with --gt (default 0.01)",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=0.9,
        metavar="X",
        help="without --gt: refuse if fewer of the confidently read words are the same "
        "(default 0.9)",
    )
    parser.add_argument("--force", action="store_true", help="write it whatever the loss")


def main(args: argparse.Namespace) -> int:
    """Calibrate, quantise, compare on held-out images, and write if the loss allows it."""
    from textspot_ray.evaluation.ground_truth import read_ground_truth
    from textspot_ray.machine import int8_note
    from textspot_ray.spotting.catalogue import load_bundle
    from textspot_ray.spotting.int8 import check_nncf
    from textspot_ray.spotting.quantize import (
        agreement_of,
        calibrate,
        check_free,
        publish,
        quantise,
        spot_all,
    )

    check_nncf()
    bundle = load_bundle(args.model)
    out = Path(args.out or f"{bundle.spec.name}-int8")
    check_free(out)
    gt = read_ground_truth(args.gt) if args.gt else None
    images = _images(args.calibrate, args.images)
    held = {name: data for i, (name, data) in enumerate(images.items()) if i % _EVERY == 0}
    print(f"calibrating {bundle.spec.name} on {len(images) - len(held)} images", flush=True)
    calibration = calibrate(bundle, (images[name] for name in images if name not in held))
    if args.detector_only:
        calibration = replace(calibration, features=())
    with tempfile.TemporaryDirectory(prefix="textspot-int8-") as work:
        draft = quantise(bundle, calibration, Path(work) / "bundle")
        print(f"comparing on {len(held)} held-out images", flush=True)
        before, after = spot_all(bundle, held, "f32"), spot_all(draft, held, "int8")
        threshold = bundle.spec.text_threshold
        outcome = QuantizeOutcome(
            agreement_of(before, after, threshold),
            None
            if gt is None
            else (_hmean(before, gt, args, threshold), _hmean(after, gt, args, threshold)),
        )
        for name, figure in outcome.figures.items():
            print(f"  {name}: {figure}")
        reason = _refusal(outcome, args)
        if reason is not None and not args.force:
            raise UsageError(f"{reason}; nothing was written (--force writes it all the same)")
        publish(draft, out, outcome.figures)
    print(f"wrote {out}; use it with --model {out}")
    note = int8_note()
    if note is not None:
        print(f"note: {note}")
    return ExitCode.OK


def _images(sources: list[str], limit: int) -> dict[str, bytes]:
    """Encoded images by image id, in the order listed."""
    from textspot_ray.config import ImageConfig, SourceConfig
    from textspot_ray.records import Item
    from textspot_ray.sources.listing import list_items
    from textspot_ray.sources.reader import Reader

    source, rules = SourceConfig(uris=tuple(sources), limit=limit), ImageConfig()
    items = [found for found in list_items(source, rules) if isinstance(found, Item)]
    with Reader(source, rules) as reader:
        found = {e.item.image_id: e.data for e in reader.read(items) if e.data is not None}
    if len(found) < _FEWEST:
        raise UsageError(f"{len(found)} readable images are too few to calibrate; give 100 or more")
    return found


def _hmean(
    results: Mapping[str, ImageResult],
    gt: Mapping[str, tuple[GtWord, ...]],
    args: argparse.Namespace,
    min_confidence: float,
) -> float:
    """Word spotting by the organisers' rules on the images that have ground truth."""
    from textspot_ray.evaluation.evaluate import scaled
    from textspot_ray.evaluation.ground_truth import Predicted
    from textspot_ray.evaluation.matching import evaluate
    from textspot_ray.export.names import image_key

    predictions: dict[str, list[Predicted]] = {}
    for image_id, result in results.items():
        info = result.info
        assert info is not None  # images without one are not among the results
        predictions[image_key(image_id)] = [
            Predicted(
                scaled(word.polygon, (info.width, info.height), args.gt_size),
                word.text,
                word.text_confidence,
                word.detection_confidence,
            )
            for word in result.words
            if word.text_confidence >= min_confidence
        ]
    wanted = {key: words for key, words in gt.items() if key in predictions}
    if not wanted:
        raise UsageError(f"{args.gt} has no ground truth of the images in {args.calibrate[0]}")
    return evaluate(wanted, predictions).figures.hmean


def _refusal(outcome: QuantizeOutcome, args: argparse.Namespace) -> str | None:
    if outcome.hmean is not None:
        if not outcome.hmean[0]:
            return (
                "the original finds no word of the ground truth, which then tells nothing: is it "
                "of these images, and --gt-size the size its coordinates belong to?"
            )
        loss = outcome.hmean[0] - outcome.hmean[1]
        if loss > args.max_loss:
            return f"hmean falls by {loss:.3f}, more than --max-loss {args.max_loss:g}"
        return None
    agreement = outcome.agreement.word_agreement
    if agreement < args.min_agreement:
        return (
            f"only {100 * agreement:.1f} % of the words agree with the original's "
            f"(--min-agreement {args.min_agreement:g})"
        )
    return None
