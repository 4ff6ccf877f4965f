"""Names of images and files in exports: the path below the folder or archive that holds them all.

``file:///data/my%20photos/a/1.jpg`` of a table over ``/data/my photos`` is ``a/1.jpg``: what other
tools open beside the pictures. A member of an archive is named by the archive's path and its own
(``b.tar/x/1.jpg``), or only by its own if all images are in one archive.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize
from urllib.parse import quote, unquote

from textspot_ray.errors import UsageError
from textspot_ray.query.pages import Page
from textspot_ray.query.views import TableViews
from textspot_ray.sources.identity import canonical_base, locate
from textspot_ray.storage.filesystem import LOCAL, split_uri
from textspot_ray.tables.schema import clean_text

_PAGE = re.compile(r"^page=\d+$")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\ud800-\udfff]')
_MAX_PART_BYTES = 200  # of a name within a folder; file systems take 255
_MAX_PATH_BYTES = 900  # of the whole; S3 takes 1,024


@dataclass(frozen=True, slots=True)
class ImageNames:
    """Names relative to a root.

    Attributes:
        root: Canonical URI that ends in a slash, or an archive's that ends in ``#``.
        prefix: Put before each name, as a folder or URL that the pictures are served from.
    """

    root: str
    prefix: str = ""

    def name(self, page: Page) -> str:
        """The picture's name, decoded; for a page of a TIFF the file's.

        Images outside the root keep their whole path (local ones) or URI.
        """
        where = page.source if page.member is None else f"{page.source}#"
        member = "" if page.member is None else clean_text(page.member)
        if self.root.endswith("#"):
            inside = where == self.root
            name = member if inside else _whole(page.source, member)
        elif page.source.startswith(self.root):
            rest = decoded(page.source.removeprefix(self.root))
            name = f"{rest}/{member}" if member else rest
        else:
            name = _whole(page.source, member)
        return self._prefixed(name)

    def file_stem(self, page: Page) -> str:
        """The same as a relative path without suffix, safe on every file system."""
        name = ImageNames(self.root).name(page)
        stem = PurePosixPath(name).with_suffix("") if PurePosixPath(name).suffix else name
        parts = [_safe(part) for part in str(stem).split("/") if part not in ("", ".", "..")]
        stem = "/".join(parts or ["image"])
        if page.page:
            stem += f"-page-{page.page + 1}"
        if len(stem.encode()) > _MAX_PATH_BYTES:
            stem = _with_digest(_cut(parts[-1], _MAX_PART_BYTES - 40), page.image_id)
        return stem

    def _prefixed(self, name: str) -> str:
        if not self.prefix:
            return name
        joint = "" if self.prefix.endswith(("/", "=")) else "/"
        is_url = "://" in self.prefix or "?" in self.prefix
        return f"{self.prefix}{joint}{quote(name) if is_url else name}"


def image_names(tables: TableViews, relative_to: str | None = None, prefix: str = "") -> ImageNames:
    """How a table's images are named in exports.

    Args:
        tables: The opened table.
        relative_to: Path or URI of the folder or archive that names are relative to; None: the
            innermost that holds all images of the table.
        prefix: Put before each name.

    Raises:
        UsageError: No image lies below ``relative_to``.
    """
    if relative_to is not None:
        return ImageNames(_given_root(tables, relative_to), prefix)
    first, last, members, images = tables.rows(
        "SELECT min(source), max(source), count(member), count(*) FROM images"
    )[0]
    if first is None:
        return ImageNames("", prefix)
    if first == last and members == images:
        return ImageNames(f"{first}#", prefix)
    # of the least and greatest of many it is that of all; cut to whole parts below
    common = os.path.commonprefix([str(first), str(last)])  # noqa: RUF071
    return ImageNames(common[: common.rfind("/") + 1], prefix)


class FileNames:
    """Names of one file per image: that of the picture, with a digest only where two are the same.

    Args:
        format: Name of the format; ICDAR prescribes names of its own.
        suffix: Of each file.
        names: How images are named.
    """

    def __init__(self, format: str, suffix: str, names: ImageNames) -> None:
        self._format = format
        self._suffix = suffix
        self._names = names
        self._taken: set[str] = set()

    def take(self, page: Page) -> str:
        """The relative path of an image's file."""
        is_icdar = self._format == "icdar"
        stem = icdar_stem(page.image_id) if is_icdar else self._names.file_stem(page)
        name = f"{stem}{self._suffix}"
        if same_file(name) in self._taken:
            name = f"{_with_digest(stem, page.image_id)}{self._suffix}"
        self._taken.add(same_file(name))
        return name

    def stale(self, there: Iterable[str]) -> int:
        """Number of existing files with our suffix that were not written now."""
        return sum(
            name.endswith(self._suffix) and same_file(name) not in self._taken for name in there
        )


def is_folder(out: str) -> bool:
    """Whether ``--out`` means a folder of one file per image."""
    protocol, rest = split_uri(out)
    if protocol == LOCAL and Path(rest).is_dir():
        return True
    return out.endswith(("/", "\\")) or not PurePosixPath(rest).suffix


def decoded(encoded: str) -> str:
    """A decoded canonical name; bytes that are not UTF-8 stay encoded."""
    return clean_text(unquote(encoded, errors="surrogateescape"))


def image_key(image_id: str) -> str:
    """Key of an image in the ICDAR format: the stem of the last path part of its id.

    ``s3://b/ic15.tar#images/img_7.jpg`` gives ``img_7``, which is joined to ``gt_img_7.txt``. A
    trailing page part (``#page=0``) is not a name and is ignored.
    """
    parts = [unquote(part) for part in image_id.split("#")]
    while len(parts) > 1 and _PAGE.match(parts[-1]):
        parts.pop()
    return PurePosixPath(parts[-1]).stem


def icdar_stem(image_id: str) -> str:
    """Name of an image's result file for the ICDAR organisers, without its suffix."""
    return f"res_{_safe(image_key(image_id))}"


def same_file(name: str) -> str:
    """Equal for names that are the same file on some system: ignores case and Unicode form."""
    return normalize("NFC", name).casefold()


def _given_root(tables: TableViews, relative_to: str) -> str:
    base = (canonical_base(relative_to) or "").rstrip("/")
    for root, condition, sought in (
        (f"{base}#", "source = $sought", base),
        (f"{base}/", "starts_with(source, $sought)", f"{base}/"),
    ):
        if tables.rows(f"SELECT 1 FROM images WHERE {condition} LIMIT 1", {"sought": sought}):
            return root
    raise UsageError(f"--relative-to {relative_to}: no image of {tables.uri} lies there")


def _whole(source: str, member: str) -> str:
    protocol, path = locate(source)
    name = clean_text(path) if protocol == LOCAL else decoded(source)
    return f"{name}/{member}" if member else name


def _safe(part: str) -> str:
    clean = _FORBIDDEN.sub("_", part).rstrip(" .") or "_"
    if len(clean.encode()) <= _MAX_PART_BYTES:
        return clean
    return _with_digest(_cut(clean, _MAX_PART_BYTES - 9), part)


def _with_digest(stem: str, text: str) -> str:
    """A stem made unique by the hash of what it stands for."""
    return f"{stem}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")
