"""Tables into the files of other tools, image by image: one file, a folder, or a zip."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from textspot_ray.errors import UsageError
from textspot_ray.export.formats import (
    WITH_PIXELS,
    ExportReport,
    FormatOptions,
    TextWriter,
    writer_class,
)
from textspot_ray.export.layout import PageLayout
from textspot_ray.export.names import (
    FileNames,
    ImageNames,
    icdar_stem,
    image_names,
    is_folder,
    same_file,
)
from textspot_ray.query.destination import Folder, open_binary, open_text
from textspot_ray.query.pages import Page, read_pages
from textspot_ray.query.selection import source_condition
from textspot_ray.query.source_roots import SourceRoots
from textspot_ray.query.views import TableViews


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What is exported and how.

    Attributes:
        source: Glob on the source, the image id or the file name.
        min_confidence: Words below are left out; None: the table's text threshold.
        max_confidence: Words above are left out; None: none is.
        limit: Maximal number of images.
        relative_to: What names are relative to; None: the folder or archive that holds all images.
        image_prefix: Put before the names of pictures.
        confidences: Write confidences if the format has them as an option.
        storage_options: fsspec options by protocol.
        source_roots: Where pictures have moved, for formats that hold pixels.
    """

    source: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    limit: int | None = None
    relative_to: str | None = None
    image_prefix: str = ""
    confidences: bool = False
    storage_options: Mapping[str, Any] | None = None
    source_roots: SourceRoots = field(default_factory=SourceRoots)


def export_table(
    tables: TableViews, format: str, out: str | None, settings: ExportSettings | None = None
) -> ExportReport:
    """Write a table in a format.

    Args:
        tables: The opened table.
        format: One of `formats.FORMATS`.
        out: A folder (no suffix, or ending in a slash) or ``.zip`` for one file per image; another
            name for one file; any fsspec URI; None and ``-`` for standard output.
        settings: What is written and how.

    Raises:
        UsageError: One file was asked for but the format holds one image per file; two images would
            get the same prescribed name; or the output cannot be written.
    """
    chosen = settings or ExportSettings()
    names = image_names(tables, chosen.relative_to, chosen.image_prefix)
    if format == "icdar":
        _check_keys(tables, chosen)
    pages = read_pages(
        tables,
        source=chosen.source,
        min_confidence=chosen.min_confidence,
        max_confidence=chosen.max_confidence,
        limit=chosen.limit,
    )
    if format in WITH_PIXELS:
        return _with_pixels(tables, pages, format, out, names, chosen)
    export = _TextExport(format, names, chosen)
    if out is not None and out.endswith(".zip"):
        export.to_zip(pages, out)
    elif out is not None and out != "-" and is_folder(out):
        export.to_folder(pages, out)
    else:
        export.to_file(pages, out)
    return export.report


class _TextExport:
    def __init__(self, format: str, names: ImageNames, settings: ExportSettings) -> None:
        self._format = format
        self._names = names
        self._settings = settings
        self.report = ExportReport()

    def to_file(self, pages: Iterable[Page], out: str | None) -> None:
        writer = self._writer(several=True)
        with open_text(out, self._settings.storage_options) as file:
            file.write(writer.head())
            for page in self._counted(pages):
                number = self.report.images
                if number > 1 and not writer.many:
                    raise UsageError(
                        f"{self._format} holds one image per file: give a folder or a .zip as --out"
                    )
                file.write(writer.page(PageLayout(page, self._names.name(page)), number))
            file.writelines(writer.foot())
        self.report.files = 1

    def to_folder(self, pages: Iterable[Page], out: str) -> None:
        folder = Folder(out, self._settings.storage_options)
        names = self._each(pages, folder.write)
        self.report.stale = names.stale(folder.files())

    def to_zip(self, pages: Iterable[Page], out: str) -> None:
        with (
            open_binary(out, self._settings.storage_options) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            self._each(pages, archive.writestr)

    def _each(self, pages: Iterable[Page], write: Callable[[str, bytes], None]) -> FileNames:
        names = FileNames(self._format, writer_class(self._format).suffix, self._names)
        for page in self._counted(pages):
            writer = self._writer(several=False)
            layout = PageLayout(page, self._names.name(page))
            text = writer.head() + writer.page(layout, 1) + "".join(writer.foot())
            write(names.take(page), text.encode("utf-8", "backslashreplace"))
            self.report.files += 1
        return names

    def _writer(self, several: bool) -> TextWriter:
        return writer_class(self._format)(FormatOptions(several, self._settings.confidences))

    def _counted(self, pages: Iterable[Page]) -> Iterator[Page]:
        keep_failed = writer_class(self._format).failed
        for page in pages:
            if page.status == "failed" and not keep_failed:
                self.report.failed += 1
                continue
            self.report.count(page)
            yield page


def _with_pixels(
    tables: TableViews,
    pages: Iterable[Page],
    format: str,
    out: str | None,
    names: ImageNames,
    settings: ExportSettings,
) -> ExportReport:
    # imported here because the two import the image decoders
    from textspot_ray.export.pixels import PixelExport
    from textspot_ray.query.pictures import Pictures

    if out is None or out == "-":
        raise UsageError(f"{format} is not text: give --out a file or folder")
    options = settings.storage_options
    store, roots = tables.files.store, settings.source_roots
    with Pictures(store, options, source_roots=roots) as pictures:
        job = PixelExport(pages, pictures, out, names, ExportReport(), options)
        importlib.import_module(f"textspot_ray.export.{format}").write(job)
    return job.report


def _check_keys(tables: TableViews, settings: ExportSettings) -> None:
    """Refuse equal names before anything is written; pages of one TIFF are the usual case."""
    where = "status <> 'failed'"
    parameters: dict[str, str] = {}
    if settings.source is not None:
        condition, parameters = source_condition(settings.source)
        where += f" AND {condition}"
    tail = "" if settings.limit is None else f" LIMIT {int(settings.limit)}"
    seen: dict[str, str] = {}
    sql = f"SELECT image_id, page FROM images WHERE {where}{tail}"
    for image_id, page in tables.rows(sql, parameters):
        key = same_file(icdar_stem(image_id))
        if key in seen:
            why = " (pages of one file)" if page else ""
            raise UsageError(
                f"{seen[key]} and {image_id} would both be {icdar_stem(image_id)}.txt{why}: "
                "ICDAR joins results by name; choose with --source"
            )
        seen[key] = image_id
