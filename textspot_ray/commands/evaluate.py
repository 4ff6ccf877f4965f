"""Score a table against ICDAR2015 ground truth: word spotting, end-to-end and detection.

    textspot evaluate tables --gt gt --gt-size 1280x720

An image is joined to its ground truth by name: img_7.jpg to gt_img_7.txt.
"""

from __future__ import annotations

import argparse
import json
import sys

from textspot_ray.commands.table_options import (
    add_min_confidence,
    add_table_argument,
    count,
    opened_table,
    size,
    storage_options,
)
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser)
    parser.add_argument("--gt", required=True, help="folder, tar or zip of gt_<image>.txt files")
    parser.add_argument(
        "--gt-size", type=size, metavar="WxH", help="image size the gt's coordinates belong to"
    )
    parser.add_argument(
        "--rules", choices=("rrc", "accuracy-checker"), default="rrc", help="default: rrc"
    )
    parser.add_argument("--lexicon", metavar="PATH", help="word list, or one a photo (voc_*.txt)")
    parser.add_argument(
        "--lexicon-distance",
        type=int,
        default=1,
        metavar="N",
        help="drop readings with a larger edit distance to every word of the lexicon (default: 1)",
    )
    add_min_confidence(parser)
    parser.add_argument(
        "--only-in-table", action="store_true", help="leave out gt of images the table lacks"
    )
    parser.add_argument("--against", metavar="DIR", help="another table: paired differences")
    parser.add_argument("--per-image", metavar="CSV", help="write the result of each image")
    parser.add_argument("--misses", metavar="HTML", help="write a page of the worst misses")
    parser.add_argument("--worst", type=count, default=20, metavar="N", help="images on that page")
    parser.add_argument(
        "--failures", metavar="PNG", help="draw every word not read, and count them by kind"
    )
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.evaluation.evaluate import (
        EvaluateSettings,
        compare_evaluations,
        evaluate_table,
    )
    from textspot_ray.evaluation.failures import failures_report
    from textspot_ray.evaluation.ground_truth import read_ground_truth
    from textspot_ray.evaluation.lexicon import read_lexicon
    from textspot_ray.evaluation.report import (
        comparison_report,
        evaluation_json,
        evaluation_report,
        write_images_csv,
    )
    from textspot_ray.evaluation.rules import Variant
    from textspot_ray.query.destination import open_text

    gt = read_ground_truth(args.gt)
    settings = EvaluateSettings(
        variant=Variant(args.rules),
        gt_size=args.gt_size,
        min_confidence=args.min_confidence,
        lexicon=read_lexicon(args.lexicon) if args.lexicon else None,
        max_distance=args.lexicon_distance,
        only_in_table=args.only_in_table,
    )
    comparisons = failed = None
    with opened_table(args) as tables:
        found = evaluate_table(tables, gt, settings)
        if args.against:
            with opened_table(args, args.against) as others:
                other = evaluate_table(others, gt, settings)
            comparisons = compare_evaluations(other, found)
        if args.per_image:
            with open_text(args.per_image, storage_options(args)) as file:
                write_images_csv(found, file)
        if args.misses:
            from textspot_ray.evaluation.worst_images import write_misses

            write_misses(
                tables, found, args.gt_size, args.worst, args.misses, storage_options(args)
            )
        if args.failures:
            from textspot_ray.evaluation.failure_sheet import write_sheet

            failed = write_sheet(tables, found, args.gt_size, args.failures, storage_options(args))
    if args.json:
        print(json.dumps(evaluation_json(found, comparisons, failed)))
    else:
        sys.stdout.write(evaluation_report(found))
        if comparisons is not None:
            sys.stdout.write(comparison_report(args.against, comparisons))
        if failed is not None:
            sys.stdout.write("\n" + failures_report(failed))
    return ExitCode.OK
