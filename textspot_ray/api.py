"""The Python interface: read images, run over archives, look at the results.

import textspot_ray as ts

ts.read("photo.jpg").text
for result in ts.spot(["a.jpg", "https://example.org/b.png"]):
    print(result.source, [word.text for word in result.words])
ts.run("photos/", out="tables", precision="int8")
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypedDict, Unpack, overload

import numpy as np

from textspot_ray.config import ImageConfig, RunConfig
from textspot_ray.errors import ConfigError, MissingExtraError, UsageError, did_you_mean
from textspot_ray.options import config_of
from textspot_ray.records import ImageResult, RunReport, Word
from textspot_ray.storage.faults import error_kind

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

    from textspot_ray.engine.components import Components
    from textspot_ray.engine.progress import OnProgress
    from textspot_ray.query.pages import Page
    from textspot_ray.spotting.spotter import TextSpotter

    ImageInput: TypeAlias = (
        str
        | os.PathLike[str]
        | bytes
        | bytearray
        | memoryview
        | BinaryIO
        | NDArray[np.uint8]
        | PilImage
    )
else:
    ImageInput = Any  # the names above are not imported for it
"""A path, a URI, encoded bytes, a binary file, a PIL image, or H x W (x 3 or 4) uint8 pixels."""

_LONGEST_PX = 1280


@dataclass(frozen=True)
class SpotResult:
    """What was found in one image, or in one page of a multi-page file.

    Attributes:
        source: The image's URI or path; empty for pixels and bytes.
        record: The full result: words of any confidence, sizes, times, the error if it failed.
        min_confidence: Words below it are left out of ``words``, ``text`` and exports.
    """

    source: str
    record: ImageResult
    min_confidence: float = 0.0
    _content: bytes | NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def words(self) -> list[Word]:
        """The words of at least ``min_confidence``, in reading order."""
        return [word for line in self.lines for word in line]

    @functools.cached_property
    def lines(self) -> list[list[Word]]:
        """Words by line, in reading order."""
        from textspot_ray.reading_order import text_lines

        sure = [w for w in self.record.words if w.text_confidence >= self.min_confidence]
        return text_lines(sure)

    @property
    def text(self) -> str:
        """The text, one line of words per line."""
        return "\n".join(" ".join(word.text for word in line) for line in self.lines)

    @property
    def error(self) -> str | None:
        """Why the image failed; None if it did not."""
        return None if self.record.error is None else self.record.error.message

    @property
    def damage(self) -> str | None:
        """What is damaged in a file that could be read nevertheless; None if nothing is."""
        return None if self.record.info is None else self.record.info.damage

    @property
    def page(self) -> int:
        """Number of the page in its file, from 0."""
        return self.record.page

    @property
    def pages(self) -> int:
        """Pages of the file; 1 for nearly all images."""
        return 1 if self.record.info is None else self.record.info.pages

    @property
    def width(self) -> int | None:
        """Pixels of the upright image; None if it failed."""
        return None if self.record.info is None else self.record.info.width

    @property
    def height(self) -> int | None:
        """Pixels of the upright image; None if it failed."""
        return None if self.record.info is None else self.record.info.height

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; words in reading order, each with its line number."""
        return {
            "source": self.source,
            "page": self.page,
            "width": self.width,
            "height": self.height,
            "status": str(self.record.status),
            "error": self.error,
            "damage": self.damage,
            "text": self.text,
            "words": [
                {
                    "text": word.text,
                    "confidence": word.text_confidence,
                    "detection_confidence": word.detection_confidence,
                    "box": list(word.box),
                    "polygon": list(word.polygon),
                    "angle_deg": word.angle_deg,
                    "line": number,
                }
                for number, line in enumerate(self.lines)
                for word in line
            ],
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row per word.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as exc:
            raise MissingExtraError("a data frame", "pandas") from exc
        columns = ["text", "confidence", "detection_confidence", "box", "polygon", "angle_deg"]
        return pd.DataFrame(self.to_dict()["words"], columns=[*columns, "line"])

    def export(self, format: str = "hocr") -> str:
        """The image in another tool's format.

        Args:
            format: One of `textspot_ray.export.formats.TEXT_FORMATS`, for example ``hocr``,
                ``alto``, ``tsv``, ``jsonl``.

        Raises:
            UsageError: The format is unknown or holds more than text, or the image failed and the
                format cannot say so.
        """
        return "".join(export_results([self], format))

    def draw(self, longest_px: int = _LONGEST_PX) -> PilImage:
        """The image with each word outlined and written above its box.

        Args:
            longest_px: Longer side of the result; smaller pictures keep their size.

        Raises:
            UsageError: The image failed, or its pixels cannot be read again.
        """
        from textspot_ray.images.pixels import shrunk
        from textspot_ray.query.overlay import draw_words

        if self.record.error is not None:
            raise UsageError(f"nothing to draw: {self.error}")
        if self._content is None:
            raise UsageError("the picture is not at hand; open the tables and use .show(image_id)")
        pixels = shrunk(_decoded(self._content, self.page), longest_px)
        return draw_words(pixels, self._page(), self.min_confidence)

    def show(self) -> None:
        """Open the drawn picture in the system's viewer."""
        self.draw().show()

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows."""
        if self.record.error is not None or self._content is None:
            return None
        import io

        out = io.BytesIO()
        self.draw().save(out, format="PNG")
        return out.getvalue()

    def __repr__(self) -> str:
        of = f"page {self.page + 1} of {self.pages}, " if self.pages > 1 else ""
        if self.record.error is not None:
            return f"SpotResult({self.source!r}, {of}failed: {self.error})"
        n = len(self.words)
        size = f"{self.width}x{self.height}"
        return f"SpotResult({self.source!r}, {of}{size}, {n} word{'' if n == 1 else 's'})"

    def _page(self) -> Page:
        from textspot_ray.query.pages import Page, PageWord

        numbered = [(line, word) for line, words in enumerate(self.lines) for word in words]
        words = tuple(
            PageWord(**_values(word), word_index=index, line_index=line)
            for index, (line, word) in enumerate(numbered)
        )
        name = self.source or "image"
        status = str(self.record.status)
        if self.pages > 1:
            name = f"{name}#page={self.page}"
        return Page(name, name, None, self.page, self.width, self.height, status, None, None, words)


def export_results(
    results: Iterable[SpotResult], format: str, *, several: bool = False
) -> Iterator[str]:
    """Results as one file in the format of another tool, in pieces.

    Args:
        results: One, or ``several`` where the format can hold them; failed ones are left out
            where the format cannot name them.
        format: As of `SpotResult.export`.
        several: The file will hold several images.

    Raises:
        UsageError: The format is unknown or holds one image only, or the only image failed.
    """
    from textspot_ray.export.formats import (
        TEXT_FORMATS,
        WITH_PIXELS,
        FormatOptions,
        writer_class,
    )
    from textspot_ray.export.layout import PageLayout

    if format in WITH_PIXELS:
        raise UsageError(f"{format} holds pictures: make tables, then textspot export -f {format}")
    if format not in TEXT_FORMATS:
        hint = did_you_mean(format, TEXT_FORMATS)
        known = ", ".join(TEXT_FORMATS)
        raise UsageError(f"no format {format!r} for text{hint or f'; one of {known}'}")
    kind = writer_class(format)
    if several and not kind.many:
        raise UsageError(f"a file of {format} holds one image: read them one by one")
    writer = kind(FormatOptions(several=several))
    yield writer.head()
    number = 0
    for result in results:
        if result.error is not None and not kind.failed:
            if several:
                continue
            raise UsageError(f"nothing to export: {result.error}")
        number += 1
        page = result._page()
        name = page.source.rpartition("/")[2] or "image"
        yield writer.page(PageLayout(page, name), number)
    yield from writer.foot()


class ReadOptions(TypedDict, total=False):
    """Keyword options of `read` and `spot`.

    Attributes:
        model: ``embedded`` (default), another bundle's name, or its folder.
        precision: f32, bf16 or int8; None = the bundle's default.
        detection_threshold: In [0, 1); None = the bundle's.
        min_confidence: Words below it are left out; None = the bundle's threshold.
        tiles: As the command line's ``--tiles``; None = the default.
        alphabet: For bundles of the family ``lines``.
        dictionary: Whether unsure readings are weighed by the bundle's words; default: yes.
        words: A text of words of your own that weigh them, too.
        threads: Inference threads; None = the cores this process may use.
        colours: Channel order of arrays: ``bgr`` (default), as in OpenCV, or ``rgb``.
        storage_options: fsspec's, by protocol, for URIs: ``{"s3": {"endpoint_url": ...}}``.
    """

    model: str
    precision: str | None
    detection_threshold: float | None
    min_confidence: float | None
    tiles: str | None
    alphabet: str | None
    dictionary: bool | None
    words: str | os.PathLike[str] | None
    threads: int | None
    colours: str
    storage_options: dict[str, Any] | None


@overload
def read(
    images: list[Any] | tuple[Any, ...], *, page: int = ..., **options: Unpack[ReadOptions]
) -> list[SpotResult]: ...
@overload
def read(images: ImageInput, *, page: int = ..., **options: Unpack[ReadOptions]) -> SpotResult: ...
def read(
    images: Any, *, page: int = 0, **options: Unpack[ReadOptions]
) -> SpotResult | list[SpotResult]:
    """Read one image, or a list of them, in this process.

    The models are loaded by the first call and kept for further calls with the same settings.

    Args:
        images: A path, URI, encoded bytes, PIL image or H x W (x 3 or 4) uint8 pixels; or a list
            or tuple of these.
        page: Page of a multi-page file, from 0; `spot` reads all pages.
        options: ``model``, ``precision``, ``detection_threshold``, ``min_confidence``, ``tiles``,
            ``alphabet``, ``dictionary``, ``words``, ``threads``, ``colours``,
            ``storage_options``; see `ReadOptions`.

    Returns:
        One result, or a list in the order of the images. An image that cannot be decoded has its
        ``error`` set; nothing is raised for it.

    Raises:
        UsageError: A file is missing, or an input is not an image; the message names it.
        ConfigError: An option is wrong.
        BundleError: The model cannot be used.
    """
    reading = _Reading.of(options)
    if isinstance(images, (list, tuple)):
        return [reading.result(image, page) for image in images]
    return reading.result(images, page)


def spot(
    images: Iterable[ImageInput] | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    engine: str = "local",
    **options: Unpack[ReadOptions],
) -> Iterator[SpotResult]:
    """Results one by one, in bounded memory.

    Without ``out`` and on the local engine, a list or any other iterable of images is read in this
    process, two at a time and in order; it may be infinite. With ``out``, on Ray, or for a single
    path (a folder, an archive), ``images`` are sources as of `run`: that run is made first (into a
    temporary folder of this machine without ``out``), and the results are read from its table.

    Args:
        images: Images as `read` takes them; or sources: folders, globs, archives, lists.
        out: Folder of the tables; any fsspec URI.
        engine: ``local`` or ``ray``.
        options: As of `read`.

    Yields:
        One result per image and page; failed ones have their ``error`` set.

    Raises:
        UsageError: As in `read`, where an input is not an image at all; as in `run`.
        ConfigError: An option is wrong.
        BundleError: The model cannot be used.
    """
    if isinstance(images, (str, os.PathLike)):
        images = [images]
    elif _is_one_image(images):
        raise UsageError(f"spot() takes several images, not a {type(images).__name__}: use read()")
    elif out is None and engine == "local":
        return _stream(_Reading.of(options), images)
    _check_names(options)
    min_confidence = options.get("min_confidence")
    if min_confidence is not None:
        _check_confidence(min_confidence)
    sources = list(images)
    for source in sources:
        if not isinstance(source, (str, os.PathLike)):
            raise UsageError(
                f"tables are made of files and URIs, not of a {type(source).__name__}: "
                "leave out= away, or save the images first"
            )
    if not sources:
        return iter(())
    scratch = None if out is not None else tempfile.TemporaryDirectory(prefix="textspot-spot-")
    where = scratch.name if scratch is not None else str(out)
    known: dict[str, Any] = {k: v for k, v in options.items() if k not in _RESULT_OPTIONS}
    run([str(source) for source in sources], where, engine=engine, **known)
    return _table_results(where, min_confidence, scratch, options.get("storage_options"))


def run(
    sources: RunConfig | str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    overrides: Iterable[str] = (),
    on_progress: OnProgress | None = None,
    parts: Components | None = None,
    **options: Any,
) -> RunReport:
    """Spot every word in the sources and write the tables; committed work is not done again.

    Args:
        sources: Folders, globs, images, lists, archives, any fsspec URI; or a whole `RunConfig`.
        out: Folder of the tables; any fsspec URI.
        config: A YAML file of further settings.
        overrides: ``section.key=value``, as ``--set`` takes them.
        on_progress: Called a few times a second with a `textspot_ray.engine.progress.Progress`.
        parts: Components instead of the configuration's; see `textspot_ray.engine.components`.
        options: The command line's names: ``model``, ``precision``, ``tiles``, ``engine``,
            ``address``, ``limit``, ``include`` ... (`textspot_ray.options.KEYS`), and
            ``storage_options``, a dict by protocol.

    Returns:
        Counts of the run and of the whole table.

    Raises:
        ConfigError: An option is unknown or wrong.
        UsageError: Sources or model cannot be used.
        FingerprintError: The output holds a table made with other settings.
        StorageError: The output cannot be written.
        AbortedError: The run stopped for a reason that is not an image's.
    """
    from textspot_ray.engine.run import run as run_engine

    if isinstance(sources, RunConfig):
        if out is not None or config is not None or options or list(overrides):
            raise ConfigError("give a RunConfig alone, or sources with options")
        return run_engine(sources, on_progress=on_progress, parts=parts)
    uris = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    made = config_of(
        [str(uri) for uri in uris],
        {**options, "out": None if out is None else str(out)},
        config=None if config is None else str(config),
        overrides=overrides,
    )
    if not made.output.uri:
        raise ConfigError("no output folder given: add out=")
    return run_engine(made, on_progress=on_progress, parts=parts)


_RESULT_OPTIONS = ("min_confidence", "colours")  # the other options are a run's, too


@dataclass(frozen=True, slots=True)
class _Reading:
    """A loaded spotter and how its results are returned."""

    spotter: TextSpotter
    min_confidence: float
    colours: str
    storage_options: dict[str, Any]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _Reading:
        """From keyword options, checked as those of the command line and of YAML are."""
        from textspot_ray.spotting.own_words import read_own_words

        _check_names(options)
        colours, min_confidence = options.get("colours", "bgr"), options.get("min_confidence")
        known = {name: value for name, value in options.items() if name not in _RESULT_OPTIONS}
        if known.get("words") is not None:
            known["words"] = os.fspath(known["words"])
        made = config_of((), known)
        # by content: the file may be another one by the next call
        words = read_own_words(made.model.words) if made.model.words else frozenset()
        spotter = _loaded(made.model, words, made.image, options.get("threads"), os.getpid())
        if min_confidence is None:
            min_confidence = spotter.text_threshold
        _check_confidence(min_confidence)
        _check_colours(colours)
        return cls(spotter, float(min_confidence), colours, made.source.storage_options)

    def result(self, image: Any, page: int = 0) -> SpotResult:
        """Read one image."""
        from textspot_ray.spotting.inputs import image_content

        source, content = image_content(image, self.colours, storage_options=self.storage_options)
        return SpotResult(source, self.spotter.spot(content, page), self.min_confidence, content)

    def all_pages(self, first: SpotResult) -> Iterator[SpotResult]:
        """The result of the first page, then those of the other pages."""
        yield first
        content = first._content
        for page in range(1, min(first.pages, ImageConfig().max_pages)):
            record = self.spotter.spot(content, page)
            yield SpotResult(first.source, record, first.min_confidence, content)


def _check_names(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in ReadOptions.__annotations__:
            known = ", ".join(ReadOptions.__annotations__)
            hint = did_you_mean(name, ReadOptions.__annotations__)
            raise TypeError(f"there is no option {name!r}{hint or f'; there are {known}'}")


@functools.lru_cache(maxsize=2)
def _loaded(
    model: Any, words: frozenset[str], image: ImageConfig, threads: int | None, pid: int
) -> TextSpotter:
    """Cached by settings and process: models do not survive a fork."""
    from textspot_ray.spotting.spotter import TextSpotter

    return TextSpotter.load(
        model.name,
        precision=model.precision,
        detection_threshold=model.detection_threshold,
        alphabet=model.alphabet,
        dictionary=model.dictionary,
        words=words,
        threads=threads,
        image=image,
    )


def _check_confidence(value: Any) -> None:
    if not isinstance(value, (int, float, np.floating)) or not 0 <= value <= 1:
        raise ConfigError(f"min_confidence must be in [0, 1], not {value!r}")


def _check_colours(colours: str) -> None:
    from textspot_ray.spotting.inputs import COLOURS

    if colours not in COLOURS:
        raise ConfigError(f"colours must be bgr or rgb, not {colours!r}")


def _decoded(content: bytes | NDArray[np.uint8], page: int) -> NDArray[np.uint8]:
    if isinstance(content, np.ndarray):
        return content
    from textspot_ray.images.decode import decode
    from textspot_ray.records import ImageError

    decoded = decode(content, page=page, max_pixels=ImageConfig().max_pixels)
    if isinstance(decoded, ImageError):
        raise UsageError(f"nothing to draw: {decoded.message}")
    return decoded.image


def _is_one_image(images: Any) -> bool:
    """Whether it is iterable (over bytes or rows) but is one image."""
    return isinstance(images, (bytes, bytearray, memoryview)) or (
        isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype != object
    )


def _stream(reading: _Reading, images: Iterable[Any]) -> Iterator[SpotResult]:
    """Read two images at a time: one is decoded while the other is detected."""
    waiting: deque[Future[SpotResult]] = deque()
    with ThreadPoolExecutor(2, "spot") as pool:
        for image in images:
            waiting.append(pool.submit(_tried, reading, image))
            if len(waiting) > 2:
                yield from reading.all_pages(waiting.popleft().result())
        while waiting:
            yield from reading.all_pages(waiting.popleft().result())


def _tried(reading: _Reading, image: Any) -> SpotResult:
    """Read an image; a file that cannot be read becomes a failed image, as the stream goes on."""
    from textspot_ray.records import ErrorKind, ImageError, Item, Stage

    try:
        return reading.result(image)
    except UsageError as exc:
        if not isinstance(image, (str, os.PathLike)):
            raise
        kind = error_kind(exc.__cause__) if exc.__cause__ is not None else ErrorKind.STORAGE
        name = os.fspath(image)
        error = ImageError(Stage.READ, kind, str(exc))
        record = ImageResult(Item(name, name), 0, None, error=error)
        return SpotResult(name, record, reading.min_confidence)


def _table_results(
    where: str,
    min_confidence: float | None,
    scratch: tempfile.TemporaryDirectory[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> Iterator[SpotResult]:
    """The images of a table; a scratch folder is deleted after the last, or with the iterator."""
    from textspot_ray.query.pages import read_pages
    from textspot_ray.query.views import open_views

    with scratch or contextlib.nullcontext(), open_views(where, storage_options) as views:
        lowest = views.min_confidence(min_confidence)
        messages = dict(views.rows("SELECT image_id, message FROM errors"))
        for page in read_pages(views, min_confidence=0.0):
            yield _from_page(page, lowest, messages.get(page.image_id))


def _from_page(page: Page, min_confidence: float, message: str | None) -> SpotResult:
    from textspot_ray.records import ErrorKind, ImageError, Item, PageInfo, Stage

    info = None
    if page.width is not None and page.height is not None:
        info = PageInfo(page.width, page.height, "", 1)
    error = None
    if page.status == "failed":
        error = ImageError(Stage.WRITE, ErrorKind.INTERNAL, message or "it failed")
    item = Item(page.image_id, page.source, member=page.member)
    words = tuple(replace(word, line=word.line_index) for word in page.words)
    record = ImageResult(item, page.page, info, words=words, error=error)
    return SpotResult(page.image_id, record, min_confidence)


def _values(word: Word) -> dict[str, Any]:
    return {field.name: getattr(word, field.name) for field in fields(Word)}
