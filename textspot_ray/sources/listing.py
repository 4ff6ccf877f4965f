"""From sources to items: streamed, in a fixed order, each image once, nothing left out unsaid."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import SourceError
from textspot_ray.images.formats import SNIFF_BYTES, NameKind, is_image_head, name_kind
from textspot_ray.records import ImageError, Item, Skipped, Stage
from textspot_ray.sources.containers import ContainerListing
from textspot_ray.sources.id_set import IdSet, UserIds
from textspot_ray.sources.identity import canonical, canonical_base, without_base
from textspot_ray.sources.lists import ListRow, read_list
from textspot_ray.sources.parquet import TableFileError, find_image_column, open_parquet
from textspot_ray.sources.resolve import FOLDER, WEB, Source, Volumes, file_name, join_uri, resolve
from textspot_ray.sources.selection import NOT_AN_IMAGE, Selection
from textspot_ray.storage.faults import RetryPolicy, error_kind, hint_for, reason_of
from textspot_ray.storage.filesystem import LOCAL
from textspot_ray.storage.volume import FileInfo, SkippedEntry, Volume

_LOG = logging.getLogger(__name__)
LISTED_TWICE = "listed twice"
CONTAINERS = (NameKind.TAR, NameKind.TAR_STREAM, NameKind.ZIP, NameKind.PARQUET)


def list_items(
    config: SourceConfig, image: ImageConfig, retry: RetryPolicy | None = None
) -> Iterator[Item | Skipped]:
    """All items of all sources, and everything that was looked at and is none.

    Streamed: memory holds one folder level, and eight to sixteen bytes an item where items might
    be listed twice (several sources, or a list). The order is that of the sources, by name within
    a folder, as stored within an archive or list. No two items have the same ``image_id``.

    Args:
        config: What to list.
        image: Limits of images (none of them matters for listing so far).
        retry: How transient faults of storage are tried again.

    Raises:
        SourceError: A source is not there, or a list is broken.
        UsageError: Unknown scheme, or a driver is missing.
    """
    if not config.uris:
        raise SourceError("no source given")
    if config.limit == 0:
        return
    lister = _Lister(config, retry or RetryPolicy(attempts=4))
    seen: IdSet | None = None
    count = 0
    for found in lister.run():
        if seen is None and lister.may_repeat:
            seen = IdSet()
        if isinstance(found, Skipped):
            yield found
        elif not lister.selection.sampled(found.image_id):
            yield Skipped(found.image_id, "not in the sample")
        elif seen is not None and not seen.add(found.image_id):
            yield Skipped(found.image_id, LISTED_TWICE)
        else:
            yield found
            count += 1
            if count == config.limit:
                return


class _Lister:
    def __init__(self, config: SourceConfig, retry: RetryPolicy) -> None:
        self.selection = Selection(config)
        self._config = config
        self._retry = retry
        self._volumes = Volumes(config.storage_options)
        self._base = canonical_base(config.base)
        self._given = UserIds()
        self._warned = False
        self._containers = ContainerListing(config, self.selection, retry, self._given)
        # Whether an image could be listed more than once; known before the first item.
        self.may_repeat = len(config.uris) > 1 or "{" in config.uris[0]

    def run(self) -> Iterator[Item | Skipped]:
        """Everything of every source."""
        for uri in self._config.uris:
            for source in resolve(uri, self._volumes, self._retry):
                yield from self._explicit(source, uri)

    def _explicit(self, source: Source, uri: str) -> Iterator[Item | Skipped]:
        if source.kind is FOLDER:
            yield from self._folder(source, uri)
        elif source.kind is NameKind.LIST or (
            source.kind is NameKind.PARQUET and not self._holds_images(source)
        ):
            self.may_repeat = True
            yield from self._list(source)
        elif source.kind in CONTAINERS:
            yield from self._container(source)
        else:
            reason = self.selection.filtered(file_name(source.protocol, source.path))
            yield self._file(source) if reason is None else Skipped(source.uri, reason)

    def _folder(self, source: Source, uri: str) -> Iterator[Item | Skipped]:
        volume = self._volumes.get(source.protocol)
        root = source.path.rstrip("/") + "/"
        pruned: list[Skipped] = []
        found_any = False

        def descend(path: str) -> bool:
            relative = path[len(root) :]
            reason = self.selection.passed_folder(relative)
            if reason is not None:
                pruned.append(Skipped(canonical(source.protocol, path), reason))
            return reason is None and (source.glob is None or source.glob.may_match_below(relative))

        try:
            for entry in volume.walk(source.path, descend):
                yield from pruned
                pruned.clear()
                relative = entry.path[len(root) :]
                if source.glob is not None and not source.glob.matches(relative):
                    continue
                found_any = True
                if isinstance(entry, SkippedEntry):
                    yield self._passed(source.protocol, entry)
                else:
                    yield from self._found(volume, source.protocol, entry, relative)
            yield from pruned
        except (OSError, TimeoutError) as exc:
            if isinstance(exc, FileNotFoundError):
                raise SourceError(f"no such folder: {uri}") from exc
            hint = hint_for(exc) if source.protocol != LOCAL else ""
            tail = f" ({hint})" if hint else ""
            raise SourceError(f"cannot list {uri}: {reason_of(exc)}{tail}") from exc
        if source.glob is not None and not found_any:
            raise SourceError(f"nothing matches {uri}")

    def _passed(self, protocol: str, entry: SkippedEntry) -> Item | Skipped:
        uri = canonical(protocol, entry.path)
        if entry.fault is None:
            return Skipped(uri, entry.reason)
        # What cannot be looked into may hold images: a row says so, or they would just be missing.
        error = _list_error(entry.fault, f"{entry.reason}: {reason_of(entry.fault)}")
        return Item(self._id(uri), uri, error=error)

    def _found(
        self, volume: Volume, protocol: str, entry: FileInfo, relative: str
    ) -> Iterator[Item | Skipped]:
        kind = name_kind(relative)
        reason = self.selection.passed(relative, is_container=kind in CONTAINERS)
        if reason is not None:
            yield Skipped(canonical(protocol, entry.path), reason)
        elif kind is NameKind.IMAGE:
            yield self._file(Source(kind, protocol, entry.path, entry))
        elif kind in CONTAINERS:
            source = Source(kind, protocol, entry.path, entry)
            if kind is NameKind.PARQUET and not self._holds_images(source):
                yield Skipped(source.uri, "Parquet without image bytes")
            else:
                yield from self._container(source)
        elif kind is NameKind.UNKNOWN and entry.size != 0:
            yield self._sniffed(volume, protocol, entry)
        else:
            yield Skipped(canonical(protocol, entry.path), NOT_AN_IMAGE)

    def _sniffed(self, volume: Volume, protocol: str, entry: FileInfo) -> Item | Skipped:
        uri = canonical(protocol, entry.path)
        try:
            head = self._retry.call(lambda: volume.read(entry.path, 0, SNIFF_BYTES))
        except Exception as exc:
            return Item(self._id(uri), uri, error=_list_error(exc, reason_of(exc)))
        if is_image_head(head):
            return self._file(Source(NameKind.IMAGE, protocol, entry.path, entry))
        return Skipped(uri, NOT_AN_IMAGE)

    def _file(self, source: Source, row: ListRow | None = None) -> Item:
        uri = source.uri
        info = source.info
        if source.protocol in WEB and not self._warned:
            self._warned = True
            _LOG.warning("images over HTTP have no content tag: changes will not be noticed")
        return Item(
            image_id=self._row_id(row, uri) if row else self._id(uri),
            source=uri,
            size=info.size if info else None,
            content_tag=info.tag if info else None,
            extra=row.extra if row else None,
        )

    def _container(self, source: Source, row: ListRow | None = None) -> Iterator[Item | Skipped]:
        archive_id = self._row_id(row, source.uri) if row else self._id(source.uri)
        volume = self._volumes.get(source.protocol)
        found = self._containers.list(volume, source, archive_id)
        if row is None or row.extra is None:
            return found
        return (replace(f, extra=f.extra or row.extra) if isinstance(f, Item) else f for f in found)

    def _holds_images(self, source: Source) -> bool:
        """Whether a Parquet file has a column of image bytes; a broken one is taken for one."""
        volume = self._volumes.get(source.protocol)
        try:
            with volume.open(source.path) as file:
                schema = open_parquet(file).schema_arrow
        except (TableFileError, OSError):
            return True
        try:
            return find_image_column(schema, self._config.image_column) is not None
        except TableFileError as exc:
            raise SourceError(f"{source.uri}: {exc}") from exc

    def _list(self, source: Source) -> Iterator[Item | Skipped]:
        volume = self._volumes.get(source.protocol)
        config = self._config
        name = file_name(source.protocol, source.path)
        try:
            with volume.open(source.path) as file:
                for row in read_list(file, name, config.uri_column, config.id_column):
                    yield from self._row(source, row)
        except OSError as exc:
            raise SourceError(f"cannot read list {source.uri}: {reason_of(exc)}") from exc

    def _row(self, base: Source, row: ListRow) -> Iterator[Item | Skipped]:
        protocol, path = join_uri(base, row.uri)
        name = file_name(protocol, path)
        kind = name_kind(name)
        reason = self.selection.filtered(name, is_container=kind in CONTAINERS)
        uri = canonical(protocol, path)
        if reason is not None:
            yield Skipped(uri, reason)
            return
        if kind in (NameKind.OTHER, NameKind.LIST):
            yield Skipped(uri, NOT_AN_IMAGE)
            return
        # A stat is cheap; a request for each of millions of remote entries is not.
        info = self._stat(path) if protocol == LOCAL else None
        if info is not None and info.is_folder:
            yield from self._folder(Source(FOLDER, protocol, path), row.uri)
        elif kind in CONTAINERS:
            yield from self._container(Source(kind, protocol, path, info), row)
        else:
            self._volumes.get(protocol)  # an unknown scheme is the list's fault, told now
            yield self._file(Source(NameKind.IMAGE, protocol, path, info), row)

    def _stat(self, path: str) -> FileInfo | None:
        try:
            return self._volumes.get(LOCAL).info(path)
        except (OSError, ValueError):
            return None  # the reader says what is wrong with it

    def _id(self, uri: str) -> str:
        return without_base(uri, self._base)

    def _row_id(self, row: ListRow, uri: str) -> str:
        return self._id(uri) if row.image_id is None else self._given.name(row.image_id, uri)


def _list_error(exc: BaseException, message: str) -> ImageError:
    return ImageError(Stage.LIST, error_kind(exc), message)
