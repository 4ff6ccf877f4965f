"""What detector and refiner learn from: the sets that a command line names, in their shares."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.training.data import datasets
from jobs.training.data.datasets import Photo
from jobs.training.detector.batches import SceneSource, Source
from jobs.training.detector.crops import CropRules
from textspot_ray.errors import UsageError


@dataclass(frozen=True, slots=True)
class Share:
    """How often crops come from a set, and how they are cut."""

    share: float
    rules: CropRules


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of all sets; None: the set is not learnt from.

    Attributes:
        icdar2015: Street photos, without those kept for validation.
        mlt: Photos with word masks.
        scenes: How rendered scenes are cropped; their share is the command line's.
        icdar2003: Photos of large words.
        backgrounds: Photos without text.
        scene_uses: Crops taken from a rendered scene.
    """

    icdar2015: Share
    mlt: Share
    scenes: CropRules
    icdar2003: Share | None = None
    backgrounds: Share | None = None
    scene_uses: int = 6
    worlds: Mapping[str, Share] = field(default_factory=dict)
    """Documents, web graphics and plates below ``--data``, by folder."""


def load_world(folder: Path) -> list[Photo]:
    """Training pictures of a data set below ``--data``, by what lies in its folder."""
    if (folder / "masks").is_dir():
        return datasets.mlt_photos(folder)
    if (folder / "words.tsv").is_file():
        return datasets.plate_crops(folder)
    if folder.name.startswith("plates"):
        return datasets.plate_photos(folder)
    return datasets.pages(folder)


def sources_of(args: argparse.Namespace, mixture: Mixture) -> list[Source | SceneSource]:
    """Load the sources named on the command line.

    Raises:
        UsageError: none was named.
        SourceError: a named folder is not what it should be.
    """
    sources: list[Source | SceneSource] = []

    def add(photos: list[Photo], share: Share) -> None:
        sources.append(Source(photos, share.share, share.rules))

    if args.icdar2015:
        add(datasets.icdar2015_training(args.icdar2015), mixture.icdar2015)
    if mixture.icdar2003 and args.icdar2003:
        add(datasets.icdar_photos(args.icdar2003), mixture.icdar2003)
    if args.mlt:
        add(datasets.mlt_photos(args.mlt), mixture.mlt)
    for folder, share in mixture.worlds.items() if args.data else ():
        if (args.data / folder).is_dir():
            add(load_world(args.data / folder), share)
    # photos with ground truth serve scenes, their words painted over; textless they are not
    worded = bool(args.backgrounds) and (args.backgrounds / "gt").is_dir()
    if mixture.backgrounds and args.backgrounds and not worded:
        add(datasets.background_photos(args.backgrounds), mixture.backgrounds)
    if args.scenes:
        scenes = SceneSource(args.scenes, mixture.scenes, args.backgrounds, uses=mixture.scene_uses)
        sources.append(scenes)
    if not sources:
        older = "--icdar2003, " if mixture.icdar2003 else ""
        raise UsageError(
            f"no training data: give at least one of --icdar2015, {older}--mlt, --scenes"
        )
    return sources


def validation_photos(args: argparse.Namespace) -> list[Photo]:
    """The street photos kept for validation, of ``--validation`` or else of ``--icdar2015``."""
    folder: Path | None = args.icdar2015
    if args.validation:
        folder = args.validation / "icdar2015_train"
    return datasets.icdar2015_validation(folder) if folder else []
