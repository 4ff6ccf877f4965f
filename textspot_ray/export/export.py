"""Tables into the files of other tools, image by image: one file, a folder, or a zip."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from textspot_ray.errors import UsageError
from textspot_ray.evaluation.ground_truth import image_key
from textspot_ray.export.formats import Writer, make_writer
from textspot_ray.query.pages import Page

_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_STEM = 120  # characters; with the hash and suffix below every file system's 255 bytes


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    images: int
    words: int
    files: int


def export(pages: Iterator[Page], format: str, out: str | None) -> ExportReport:
    """Write pages in a format.

    Args:
        pages: The images with their words.
        format: One of `formats.FORMATS`.
        out: A folder (no suffix, or ending in a slash) or ``.zip`` for one file an image; another
            name for one file; None and ``-`` for standard output.

    Raises:
        UsageError: The format holds one image a file but one file was asked for, or nothing can
            be written there.
    """
    try:
        if out is not None and out.endswith(".zip"):
            return _to_zip(pages, format, Path(out))
        if out is not None and out != "-" and is_folder(out):
            return _to_folder(pages, format, Path(out))
        return _to_file(pages, format, out)
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        raise UsageError(f"cannot write {out}: {exc.strerror or exc}") from exc


def is_folder(out: str) -> bool:
    """Whether ``--out`` means a folder of one file an image."""
    return out.endswith(("/", os.sep)) or Path(out).is_dir() or not Path(out).suffix


def file_name(image_id: str, format: str, writer: Writer) -> str:
    """A file name for an image: its readable end, and a hash that keeps it apart from others."""
    if format == "icdar":  # the organisers join by name
        return f"{writer.prefix}{_UNSAFE.sub('_', image_key(image_id))}{writer.suffix}"
    readable = _UNSAFE.sub("_", unquote(image_id).split("://", 1)[-1]).strip("_.-")
    digest = hashlib.sha256(image_id.encode()).hexdigest()[:8]
    return f"{readable[-_MAX_STEM:] or 'image'}-{digest}{writer.suffix}"


def _to_file(pages: Iterator[Page], format: str, out: str | None) -> ExportReport:
    writer = make_writer(format)
    images = words = 0
    with _whole_file(out) as file:
        for page in pages:
            images += 1
            words += len(page.words)
            if images == 1:
                file.write(writer.head())
            elif not writer.many:
                raise UsageError(
                    f"{format} holds one image a file: give a folder or a .zip as --out"
                )
            file.write(writer.page(page, images))
        if images == 0:
            file.write(writer.head())
        file.writelines(writer.foot())
    return ExportReport(images, words, 1)


def _to_folder(pages: Iterator[Page], format: str, folder: Path) -> ExportReport:
    folder.mkdir(parents=True, exist_ok=True)
    images = words = 0
    for name, text, page in _one_by_one(pages, format):
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        images += 1
        words += len(page.words)
    return ExportReport(images, words, images)


def _to_zip(pages: Iterator[Page], format: str, out: Path) -> ExportReport:
    images = words = 0
    unfinished = out.with_name(f"{out.name}.part")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text, page in _one_by_one(pages, format):
                archive.writestr(name, text)
                images += 1
                words += len(page.words)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return ExportReport(images, words, images)


def _one_by_one(pages: Iterator[Page], format: str) -> Iterator[tuple[str, str, Page]]:
    seen: dict[str, str] = {}
    for page in pages:
        writer = make_writer(format)
        name = file_name(page.image_id, format, writer)
        if format == "icdar":  # other names cannot be the same
            if name in seen:
                raise UsageError(
                    f"{seen[name]} and {page.image_id} would both be {name}: choose with --source"
                )
            seen[name] = page.image_id
        yield name, writer.head() + writer.page(page, 1) + "".join(writer.foot()), page


@contextlib.contextmanager
def _whole_file(out: str | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears under its name when it is complete."""
    if out is None or out == "-":
        yield sys.stdout
        return
    target = Path(out)
    unfinished = target.with_name(f"{target.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
