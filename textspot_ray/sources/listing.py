"""From sources to items: streamed, in a fixed order, each image once, with all that is skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import MissingExtraError, SourceError, StorageError, UsageError
from textspot_ray.images.formats import NameKind, name_kind
from textspot_ray.records import ErrorKind, ImageError, Item, Skipped, Stage
from textspot_ray.sources.identity import (
    IdMap,
    Taken,
    canonical,
    canonical_base,
)
from textspot_ray.sources.kinds import FILE, FOLDER, kind_of_name
from textspot_ray.sources.kinds.base import Kind, ListRow, Source, SourceFile
from textspot_ray.sources.resolve import resolve_uri
from textspot_ray.sources.selection import NOT_AN_IMAGE, Selection, is_unread_archive, not_read
from textspot_ray.sources.uris import file_name, join_uri
from textspot_ray.storage.faults import RetryPolicy
from textspot_ray.storage.filesystem import LOCAL, WEB
from textspot_ray.storage.urls import public_url
from textspot_ray.storage.volume import FileInfo, LocalVolume
from textspot_ray.storage.volumes import TimedVolumes

_LOG = logging.getLogger(__name__)
LISTED_TWICE = "listed twice"


def list_items(
    config: SourceConfig, image: ImageConfig, retry: RetryPolicy | None = None
) -> Iterator[Item | Skipped]:
    """All items of all sources, and everything that was found and skipped.

    Streamed: memory holds one folder level, and some 24 bytes per item where ids might meet
    (several sources, a list, ids of the user's). The order is that of the sources, by name within
    a folder, as stored within an archive or list. No two items have the same ``image_id``.

    Args:
        config: What to list.
        image: Limits of images; of tables, and where copies are looked for, also of what is read
            at once.
        retry: How transient faults of storage are tried again.

    Raises:
        SourceError: A source does not exist, a list is not one, or two images would share an id.
        UsageError: Unknown scheme, or a driver is missing.
    """
    if not config.uris:
        raise SourceError("no source given")
    if config.limit == 0:
        return
    listed = _listed(config, image, retry)
    if config.skip_duplicates:
        from textspot_ray.sources.copies import without_copies

        listed = without_copies(listed, config, image)
    yield from listed


def _listed(
    config: SourceConfig, image: ImageConfig, retry: RetryPolicy | None
) -> Iterator[Item | Skipped]:
    retry = retry or RetryPolicy(attempts=4)
    lister = Lister(config, retry, image.max_bytes)
    taken: IdMap | None = None
    count = 0
    try:
        for found in lister.run():
            if taken is None and lister.ids_may_meet:
                taken = IdMap()
            if isinstance(found, Skipped):
                yield found
                continue
            state = Taken.NEW
            if taken is not None:
                state = taken.take(found.image_id, _place(found))
            if state is Taken.OTHER:
                raise SourceError(_shared_id(found, Lister(config, retry, image.max_bytes)))
            if state is Taken.SAME:
                yield Skipped(found.image_id, LISTED_TWICE)
            elif not lister.selection.sampled(found.image_id):
                yield Skipped(found.image_id, "not in the sample")
            else:
                yield found
                count += 1
                if count == config.limit:
                    return
    finally:
        lister.close()


def _place(item: Item) -> str:
    """Where an image is, for people; the same for the same image only."""
    source = item.source
    if source.startswith(("http://", "https://")):
        source = public_url(source, keep_grants=True)
    if item.member is None:
        return source
    at = "" if item.offset is None else f" at {item.offset}"
    return f"{source} member {item.member}{at}"


def _shared_id(item: Item, lister: Lister) -> str:
    """Which two images share an id; the first is listed again, since only hashes are kept."""
    first = "another image"
    for found in lister.run():
        if isinstance(found, Item) and found.image_id == item.image_id:
            first = _place(found)
            break
    lister.close()
    return (
        f"two images would share the id {item.image_id!r}: {first} and {_place(item)}; give each "
        "its own id (--id-column), or leave --base and --id-column out"
    )


class _UnreachableError(StorageError):
    """The server of a list's row is not to be reached; those of other rows may be."""


class SameUrlError(SourceError):
    """Two URLs that differ only in what is not stored."""


class Lister:
    """What kinds need in order to list: selection, volumes, ids, and each other.

    Attributes:
        config: What to list.
        selection: What of it is taken.
        volumes: Where it is; reads have deadlines and are tried again.
        ids_may_meet: Whether two items could have one id; known before the first item.
        file_kind: What lists a single image file.
    """

    file_kind: Kind = FILE

    def __init__(self, config: SourceConfig, retry: RetryPolicy, max_bytes: int) -> None:
        self.config = config
        self._max_bytes = max_bytes
        self.selection = Selection(config)
        self.volumes = TimedVolumes(config.storage_options, retry)
        self.ids_may_meet = (
            len(config.uris) > 1 or "{" in config.uris[0] or config.id_column is not None
        )
        self._base = canonical_base(config.base)
        self._warned = False
        self._urls = IdMap()
        self._local = LocalVolume()

    def run(self) -> Iterator[Item | Skipped]:
        """Everything of every source."""
        for uri in self.config.uris:
            for source in resolve_uri(uri, self.volumes):
                yield from self.expand(source)

    def expand(self, source: Source) -> Iterator[Item | Skipped]:
        """Everything in a source, by its kind."""
        if source.protocol in WEB and source.kind is FILE and not self._warned:
            self._warned = True
            _LOG.warning("images over HTTP have no content tag: changes will not be noticed")
        return source.kind.list(source, self)

    def close(self) -> None:
        """Let go of threads."""
        self.volumes.close()

    def kind_of_name(self, name: str) -> Kind | None:
        """The kind of a container or list by its name."""
        return kind_of_name(name)

    def is_archive(self, name: str) -> bool:
        """Whether a member's name is that of an archive, which is not opened inside another."""
        kind = kind_of_name(name)
        return (kind is not None and kind.holds_members) or is_unread_archive(name)

    def file(self, source: Source) -> SourceFile:
        """A source's bytes."""
        volume = self.volumes.get(source.protocol)
        return SourceFile(volume, source.path, source.info, self._max_bytes)

    def uri(self, source: Source) -> str:
        """A source's canonical URI; secrets in URLs stay only where that was asked for."""
        return canonical(source.protocol, source.path, self.config.keep_url_secrets)

    def check_url(self, source: Source) -> None:
        """Refuse two URLs that become one when secrets are cut.

        Raises:
            SameUrlError: They do.
        """
        if source.protocol not in WEB or self.config.keep_url_secrets:
            return
        told_apart = public_url(source.path, keep_grants=True)
        public = self.uri(source)
        if told_apart == public and len(self._urls) == 0:
            return
        if self._urls.take(public, told_apart) is Taken.OTHER:
            raise SameUrlError(
                f"two URLs are {public} once tokens are cut from them, which are not stored: "
                "--set source.keep_url_secrets=true stores them"
            )

    def item_id(self, source: Source) -> str:
        """The id of an image file, or what the ids of an archive's members start with."""
        if source.row is not None and source.row.image_id is not None:
            return source.row.image_id
        return self.without_base(self.uri(source))

    def without_base(self, uri: str) -> str:
        """An id from a canonical URI."""
        return uri.removeprefix(self._base or "")

    def rows(self, base: Source, rows: Iterable[ListRow]) -> Iterator[Item | Skipped]:
        """What the rows of a list stand for."""
        self.ids_may_meet = True
        for row in rows:
            if row.error is not None:
                yield self._bad_row(base, row, ErrorKind.CORRUPT, row.error)
                continue
            try:
                yield from self._row(base, row)
            except (MissingExtraError, SameUrlError):
                raise
            except UsageError as exc:
                yield self._bad_row(base, row, ErrorKind.UNSUPPORTED, str(exc))
            except _UnreachableError as exc:
                yield self._bad_row(base, row, ErrorKind.STORAGE, str(exc))

    def _bad_row(self, base: Source, row: ListRow, kind: ErrorKind, problem: str) -> Item:
        uri = self.uri(base)
        message = f"row {row.number} of the list: {problem}"
        return Item(
            f"{self.without_base(uri)}#~row={row.number}",
            uri,
            error=ImageError(Stage.LIST, kind, message),
        )

    def _row(self, base: Source, row: ListRow) -> Iterator[Item | Skipped]:
        protocol, path = join_uri(base.protocol, base.path, row.uri)
        name = file_name(protocol, path)
        kind = kind_of_name(name)
        holds_members = kind is not None and kind.holds_members
        reason = self.selection.filtered(name, is_container=holds_members)
        uri = canonical(protocol, path)
        if reason is not None:
            yield Skipped(uri, reason)
            return
        if (kind is not None and not holds_members) or (
            kind is None and name_kind(name) is NameKind.OTHER
        ):
            yield Skipped(uri, not_read(name) if kind is None else NOT_AN_IMAGE)
            return
        # A stat is cheap; a request for each of millions of remote entries is not.
        info = self._stat(path) if protocol == LOCAL else None
        if info is not None and info.is_folder:
            yield from self.expand(
                Source(FOLDER, protocol, path, is_named=True, given_as=public_url(row.uri))
            )
            return
        try:
            self.volumes.get(protocol)  # an unknown scheme is this row's error
        except StorageError as exc:
            raise _UnreachableError(str(exc)) from exc
        yield from self.expand(Source(kind or FILE, protocol, path, info, row=row))

    def _stat(self, path: str) -> FileInfo | None:
        try:
            return self._local.info(path)
        except (OSError, ValueError):
            return None  # the reader says what is wrong with it
