"""A folder that trains anywhere: code, samples and weights, for a machine lent for minutes.

    python -m jobs.training pack DIR --data D [--limit-mib 60]
    python3 DIR/run.py --minutes 9 --device cuda --processes 14 --out DIR/out     # there
    python -m jobs.training unpack DIR/out --data D [--keep]                      # back here

``run.py`` needs Python 3.11, torch, numpy, OpenCV, Pillow and PyYAML, and no network. It trains
reader and detector side by side, saves every minute, and has ended by its time. The same command
goes on where it stopped; without ``out`` it begins from the weights packed. Each data set gets a
share of the room; pictures are chosen by the hash of their names and stored as JPEG.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jobs.training.data import datasets
from jobs.training.data.kept_aside import ROLES_FILE, SPLITS, Split, roles
from textspot_ray.errors import UsageError

ROOT = Path(__file__).parents[2]
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Packed:
    """How a data set is packed.

    Attributes:
        share: Of the room for samples.
        quality: Of the JPEGs.
    """

    share: float
    quality: int = 75


SETS = {
    "icdar2015_train": Packed(0.26, 72),
    "icdar2015_words": Packed(0.10, 85),
    "icdar2003_train": Packed(0.05, 60),
    "mlt_english_masks": Packed(0.10, 65),
    "mlt_french_masks": Packed(0.04, 65),
    "iiit5k_train_words": Packed(0.07, 80),
    "plates_us_words": Packed(0.07, 75),
    "born_digital_train": Packed(0.06, 80),
    "forms_train": Packed(0.06, 45),
    "pdf_pages_train": Packed(0.08, 45),
    "receipts_words": Packed(0.07, 50),
    "backgrounds": Packed(0.04, 60),
}
# Of a set's share, at most this goes to what is kept aside for validation.
VALIDATION_SHARE = 0.15


def chosen(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A set's pictures in the order of their names' hashes, and whether each is for validation.

    What is kept aside for measuring never leaves this machine.
    """
    images = folder / "words" if (folder / "words").is_dir() else folder / "images"
    paths = datasets.image_files(images if images.is_dir() else folder)
    parts = roles([p.stem for p in paths], SPLITS.get(folder.name, Split()))
    if folder.name == "icdar2015_train":
        for path in paths:
            held_out = datasets.image_number(path) in datasets.VALIDATION_IDS
            parts[path.stem] = "validate" if held_out else "train"
    ordered = sorted(paths, key=lambda p: hashlib.sha256(p.name.encode()).hexdigest())
    for path in ordered:
        if parts[path.stem] != "measure":
            yield path, parts[path.stem] == "validate"


def pack_set(folder: Path, room: int, quality: int, out: Path) -> int:
    """Write a set's shard, a tar of as many pictures as there is room for; returns how many.

    Args:
        folder: The data set.
        room: Bytes.
        quality: Of the JPEGs; masks stay PNG.
        out: The tar.
    """
    count, used, validating = 0, 0, 0
    names = set()
    told: dict[str, str] = {}
    with tarfile.open(out, "w") as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(f"{folder.name}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for path, validates in chosen(folder):
            image = datasets.read_image(path)
            grey = bool((image[..., 0] == image[..., 1]).all())
            kept = image[..., 0] if grey else image
            _, data = cv2.imencode(".jpg", kept, [cv2.IMWRITE_JPEG_QUALITY, quality])
            beside = _beside(folder, path)
            size = len(data) + sum(len(content) + 1024 for _, content in beside) + 1024
            if used + size > room:
                break
            if validates:
                if validating + size > VALIDATION_SHARE * room:
                    continue
                validating += size
            # the name stays: ground truth and labels go by it; readers look at the content
            add(path.relative_to(folder).as_posix(), np.asarray(data).tobytes())
            for name, content in beside:
                add(name, content)
            names.add(path.name)
            told[path.stem] = "validate" if validates else "train"
            used += size
            count += 1
        add(ROLES_FILE, "".join(f"{stem}\t{role}\n" for stem, role in told.items()).encode())
        table = folder / "words.tsv"
        if table.is_file():
            lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
            listed = [x for x in lines if x.split("\t")[0] in names or x.startswith("file\t")]
            add("words.tsv", "".join(listed).encode())
    return count


def _beside(folder: Path, image: Path) -> list[tuple[str, bytes]]:
    """What belongs to a picture: its ground truth, or its mask."""
    found = []
    for name in (f"gt/gt_{image.stem}.txt", f"masks/{image.stem}.png"):
        path = folder / name
        if path.is_file():
            found.append((name, path.read_bytes()))
    return found


def pack(data: Path, out: Path, limit_mib: float) -> int:
    """Write the folder; returns its size in bytes.

    Raises:
        UsageError: `out` holds something, or no data set is there.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; name another folder")
    there = {name: how for name, how in SETS.items() if (data / name).is_dir()}
    if not there:
        raise UsageError(f"{data}: none of the data sets {', '.join(SETS)}")
    (out / "shards").mkdir(parents=True)
    _copy_code(out / "code")
    fonts = _copy_fonts(out / "home/.local/share/fonts", 0.08 * limit_mib * MIB)
    shutil.copyfile(Path(__file__).with_name("pack_run.py"), out / "run.py")
    # tar pads, and the last picture of a set may leave room: a little is kept back
    room = 0.96 * limit_mib * MIB - _size(out)
    if room <= 0:
        raise UsageError(f"{limit_mib:g} MiB are too few: code and weights take more")
    shares = sum(how.share for how in there.values())
    for name, how in there.items():
        shard = out / "shards" / f"{name}.tar"
        count = pack_set(data / name, int(room * how.share / shares), how.quality, shard)
        print(f"{name}: {count} pictures, {shard.stat().st_size / MIB:.1f} MiB")
    total = _size(out)
    print(f"{out}: {total / MIB:.1f} MiB with {fonts} fonts")
    return total


def _copy_code(out: Path) -> None:
    """The trainers and what they import, with weights and labels."""
    skip = shutil.ignore_patterns("__pycache__", "models", "*.png", "data_files", "static")
    shutil.copytree(ROOT / "jobs" / "training", out / "jobs" / "training", ignore=skip)
    shutil.copytree(ROOT / "jobs" / "labels", out / "jobs" / "labels")
    for name in ("__init__.py", "training/__init__.py"):
        (out / "jobs" / name).touch()
    shutil.copytree(
        ROOT / "textspot_ray",
        out / "textspot_ray",
        ignore=lambda folder, names: [
            n for n in names if not (n.endswith(".py") or (Path(folder) / n).is_dir())
            or n in ("__pycache__", "models")
        ],
    )  # fmt: skip


def _copy_fonts(out: Path, room: float) -> int:
    """Copy plain faces of this machine, small files first, as far as there is room."""
    from jobs.training.render.fonts import find_fonts

    out.mkdir(parents=True)
    faces = [f for f in find_fonts().faces if f.path]
    paths = dict.fromkeys(f.path for f in sorted(faces, key=lambda f: -f.plainness))
    small = [p for p in map(Path, paths) if p.stat().st_size < 120_000]
    used = count = 0
    for path in small:
        size = path.stat().st_size
        if used + size > room:
            break
        shutil.copyfile(path, out / f"{count:03}{path.suffix}")
        used += size
        count += 1
    return count


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def unpack(back: Path, data: Path, keep: bool) -> None:
    """Measure weights that came back beside the committed ones, and keep them if wanted."""
    import torch

    from jobs.training.detector.scores import validate
    from jobs.training.detector.train import PAGE_SETS
    from jobs.training.detector.weights import load_trunk
    from jobs.training.reader.crops import validation_sets
    from jobs.training.reader.losses import Reader
    from jobs.training.reader.network import load_reader
    from jobs.training.reader.scores import measure, real_sets

    weights = Path(__file__).parent / "weights"
    found = {
        part: path
        for part in ("detector", "reader")
        if (path := back / part / f"{part}.npz").is_file()
    }
    if not found:
        raise UsageError(f"{back}: neither detector/detector.npz nor reader/reader.npz")
    photos = datasets.icdar2015_validation(data / "icdar2015_train")[::2]
    pages = [
        page
        for name in PAGE_SETS
        if (data / name).is_dir()
        for page in datasets.pages(data / name, "validate")
    ]
    for part, path in found.items():
        for name, source in (("committed", weights / f"{part}.npz"), ("came back", path)):
            if part == "detector":
                trunk = load_trunk(source)
                figures = {"photos F1": validate(trunk, photos).f1}
                if pages:
                    figures["pages F1"] = validate(trunk, pages).f1
            else:
                encoder, decoder = load_reader(source)
                reader = Reader(encoder.size)
                reader.encoder, reader.decoder = encoder, decoder
                sets = real_sets(data) | validation_sets(data)
                figures = {
                    key: measure(reader, words, torch.device("cpu")).attention
                    for key, words in sets.items()
                }
            print(f"{part}, {name}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    if keep:
        for part, path in found.items():
            shutil.copyfile(path, weights / f"{part}.npz")
            print(f"kept: {weights / f'{part}.npz'}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``pack``."""
    parser = argparse.ArgumentParser(prog="pack", description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of unpacked data sets")
    parser.add_argument("--limit-mib", type=float, default=60)
    args = parser.parse_args(argv)
    pack(args.data, args.out, args.limit_mib)
    return 0


def main_unpack(argv: Sequence[str] | None = None) -> int:
    """The command ``unpack``."""
    parser = argparse.ArgumentParser(prog="unpack", description="Measure weights that came back.")
    parser.add_argument("back", type=Path, help="what run.py wrote: detector/, reader/")
    parser.add_argument("--data", type=Path, required=True, help="folder of unpacked data sets")
    parser.add_argument("--keep", action="store_true", help="replace the committed weights")
    args = parser.parse_args(argv)
    unpack(args.back, args.data, args.keep)
    return 0
