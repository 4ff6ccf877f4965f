"""Listing what is inside archives: tar, compressed tar, zip and Parquet."""

from __future__ import annotations

from collections.abc import Iterator

from textspot_ray.config import SourceConfig
from textspot_ray.errors import SourceError, TextspotError
from textspot_ray.images.formats import NameKind, is_image_head
from textspot_ray.records import Container, ErrorKind, ImageError, Item, Skipped, Stage
from textspot_ray.sources.id_set import RepeatedNames, UserIds
from textspot_ray.sources.identity import member_id, member_text
from textspot_ray.sources.parquet import TableFileError, extra_json, open_parquet, rows
from textspot_ray.sources.resolve import Source
from textspot_ray.sources.selection import NESTED, NOT_AN_IMAGE, Selection, member_kind
from textspot_ray.sources.streams import (
    Cursor,
    DamagedStreamError,
    RangeCursor,
    StreamCursor,
    compression_of,
    decompress,
)
from textspot_ray.sources.tar import BrokenTarError, list_tar
from textspot_ray.sources.zip import (
    LOCAL_HEADER_BYTES,
    BrokenZipError,
    MemberError,
    ZipMember,
    head_of,
    list_zip,
    member_bytes,
)
from textspot_ray.storage.faults import RetryPolicy, error_kind, reason_of
from textspot_ray.storage.filesystem import LOCAL
from textspot_ray.storage.volume import FileInfo, Volume

# Bytes fetched at a time while looking for headers: little where a seek costs nothing, about
# what one round trip is worth on an object store.
_LOCAL_BLOCK = 32 << 10
_REMOTE_BLOCK = 2 << 20
_SNIFF_SLACK = 4096


class ContainerListing:
    """Lists archives; damage becomes one item with an error, behind the members before it."""

    def __init__(
        self, config: SourceConfig, selection: Selection, retry: RetryPolicy, given: UserIds
    ) -> None:
        self._config = config
        self._given = given
        self._selection = selection
        self._retry = retry

    def list(self, volume: Volume, source: Source, archive_id: str) -> Iterator[Item | Skipped]:
        """Members of one archive.

        Args:
            volume: Where it is.
            source: The archive; its kind is what its name says, its first bytes decide.
            archive_id: What its members' ids start with.
        """
        listing = _Listing(self._selection, self._retry, volume, source, archive_id)
        try:
            if source.kind is NameKind.PARQUET:
                yield from listing.parquet(self._config.id_column, self._given)
            elif source.kind is NameKind.ZIP:
                yield from listing.zip()
            else:
                yield from listing.tar()
        except (BrokenTarError, BrokenZipError, DamagedStreamError, TableFileError) as exc:
            yield listing.broken(ErrorKind.BROKEN_ARCHIVE, str(exc))
        except TextspotError:
            raise
        except Exception as exc:
            kind = error_kind(exc)
            yield listing.broken(kind, f"{reason_of(exc)} (run again to list the rest)")


class _Listing:
    """One archive being listed."""

    def __init__(
        self,
        selection: Selection,
        retry: RetryPolicy,
        volume: Volume,
        source: Source,
        archive_id: str,
    ) -> None:
        self._selection = selection
        self._retry = retry
        self._volume = volume
        self._path = source.path
        self._info = source.info
        self._uri = source.uri
        self._id = archive_id
        self._container = {
            NameKind.TAR: Container.TAR,
            NameKind.TAR_STREAM: Container.TAR_STREAM,
            NameKind.ZIP: Container.ZIP,
            NameKind.PARQUET: Container.PARQUET,
        }[source.kind]
        self._names = RepeatedNames()
        self._count = 0

    def broken(self, kind: ErrorKind, reason: str) -> Item:
        """The item that stands for all that cannot be listed."""
        what = {Container.ZIP: "zip", Container.PARQUET: "Parquet file"}.get(self._container, "tar")
        before = f"; {self._count} entries before that are read" if self._count else ""
        return Item(
            self._id,
            self._uri,
            self._container,
            content_tag=self._info.tag if self._info else None,
            error=ImageError(Stage.LIST, kind, f"{what}: {reason}{before}"),
        )

    def tar(self) -> Iterator[Item | Skipped]:
        """Members of a tar, plain or compressed."""
        info = self._look()
        if info.size == 0:
            raise BrokenTarError("the archive is empty (0 bytes)")
        head = self._read(0, 512)
        compression = compression_of(head)
        if compression is None and info.size is not None:
            self._container = Container.TAR
            block = _LOCAL_BLOCK if self._volume.protocol == LOCAL else _REMOTE_BLOCK
            yield from self._tar_members(RangeCursor(self._read, info.size, block))
            return
        self._container = Container.TAR_STREAM
        with self._volume.open(self._path) as file:
            stream = file if compression is None else decompress(file, compression)
            cursor = StreamCursor(stream)
            yield from self._tar_members(cursor)
            try:
                cursor.drain()
            except DamagedStreamError as exc:
                raise DamagedStreamError(f"{exc}: some of the members are damaged") from exc

    def _tar_members(self, cursor: Cursor) -> Iterator[Item | Skipped]:
        for member in list_tar(cursor, self._peek):
            self._count += 1
            reason = member.passed or self._passed(member.name, member.head)
            if reason is not None:
                yield Skipped(member_id(self._id, member.name), reason)
                continue
            yield self._item(member.name, member.offset, member.size, member.tag)

    def zip(self) -> Iterator[Item | Skipped]:
        """Members of a zip."""
        size = self._look().size
        if size is None:
            raise BrokenZipError("its server does not tell its size: download it first")
        if size == 0:
            raise BrokenZipError("the archive is empty (0 bytes)")
        for member in list_zip(self._read, size):
            self._count += 1
            reason = member.passed
            if reason is None:
                head = self._zip_head(member) if self._peek(member.name) else b""
                reason = self._passed(member.name, head)
            if reason is not None:
                yield Skipped(member_id(self._id, member.name), reason)
                continue
            yield self._item(member.name, member.offset, member.size, member.tag)

    def parquet(self, id_column: str | None, given: UserIds) -> Iterator[Item | Skipped]:
        """Rows of a table with image bytes."""
        info = self._look()
        if info.size == 0:
            raise TableFileError("the file is empty (0 bytes)")
        with self._volume.open(self._path) as file:
            table = open_parquet(file)
            names = table.schema_arrow.names
            if id_column is not None and id_column not in names:
                raise SourceError(
                    f"{self._uri} has no column {id_column!r} (columns: {', '.join(names)})"
                )
            for number, row in enumerate(rows(table, None)):
                self._count += 1
                image_id = f"{self._id}#{number}"
                if id_column is not None and row.get(id_column) is not None:
                    image_id = given.name(str(row[id_column]), image_id)
                yield Item(
                    image_id,
                    self._uri,
                    self._container,
                    member=str(number),
                    content_tag=info.tag,
                    extra=extra_json({k: v for k, v in row.items() if k != id_column}),
                )

    def _look(self) -> FileInfo:
        if self._info is None:
            self._info = self._retry.call(lambda: self._volume.info(self._path))
        return self._info

    def _read(self, start: int, stop: int) -> bytes:
        return self._retry.call(lambda: self._volume.read(self._path, start, stop))

    def _peek(self, raw: bytes) -> bool:
        """Whether only its first bytes can tell if a member is an image."""
        name = _name(raw)
        return member_kind(name) is NameKind.UNKNOWN and self._selection.passed(name) is None

    def _passed(self, raw: bytes, head: bytes) -> str | None:
        name = _name(raw)
        reason = self._selection.passed(name)
        if reason is not None:
            return reason
        kind = member_kind(name)
        if kind is NameKind.TAR:
            return NESTED
        if kind is NameKind.IMAGE or (kind is NameKind.UNKNOWN and is_image_head(head)):
            return None
        return NOT_AN_IMAGE

    def _zip_head(self, member: ZipMember) -> bytes:
        if member.encrypted or not member.size:
            return b""
        stop = member.offset + LOCAL_HEADER_BYTES + len(member.name) + _SNIFF_SLACK
        data = self._read(member.offset, stop)
        try:
            start = member_bytes(data)
        except MemberError:
            return b""
        return head_of(data, data[start : start + member.size], 512) if start else b""

    def _item(self, raw: bytes, offset: int, size: int, tag: str) -> Item:
        return Item(
            self._names.name(member_id(self._id, raw)),
            self._uri,
            self._container,
            member=member_text(raw),
            offset=offset,
            size=size,
            content_tag=tag,
        )


def _name(raw: bytes) -> str:
    """A name to judge by; archives made on Windows may have backslashes."""
    return raw.decode("utf-8", "replace").replace("\\", "/")
