"""Checking an output folder for consistency: checksums, counts, sums, plan.

It reads every byte once and keeps 40 bytes per image, however many words there are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from textspot_ray.errors import AbortedError, MissingFileError, StorageError
from textspot_ray.records import Counts, Status
from textspot_ray.storage.faults import reason_of
from textspot_ray.tables.commit.commit_record import FOLDERS, DataFile, empty_path
from textspot_ray.tables.commit.data_files import file_version, read_data_file, sha256_of
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.ids import IdIndex, hash_ids
from textspot_ray.tables.maintenance import values
from textspot_ray.tables.maintenance.rewrite import TRIES
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.schema import SCHEMAS, TABLE_VERSION, item_id, schema_of
from textspot_ray.wording import counted

_MAX_NAMED = 5  # of one kind of fault in one file


@dataclass(frozen=True, slots=True)
class Violation:
    """A finding of `verify`.

    Attributes:
        severity: ``error`` (the tables are wrong) or ``note`` (worth knowing, nothing is wrong).
        code: Stable name of the kind of finding.
        where: File, shard or image.
        message: One line.
    """

    severity: str
    code: str
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and the findings."""

    files: int
    bytes: int
    counts: Counts
    findings: tuple[Violation, ...]

    @property
    def sound(self) -> bool:
        """Whether no error was found."""
        return not any(finding.severity == "error" for finding in self.findings)


def verify(ledger: Ledger, plan: Plan, checksums: bool = True, deep: bool = False) -> VerifyReport:
    """Check everything that can be checked without the sources.

    It checks that every file that counts exists, is complete and has the right schema; that
    image_ids are unique; that each image's words, its ``n_words``, its status and its error row
    agree; that rows agree with the records' counts, and images with the plan: each item of a
    committed shard has a row, and no row belongs to an item that is not planned or not committed.

    Args:
        ledger: The ledger of the output folder.
        plan: Its plan.
        checksums: Compare sha256 as well, not only size and row count.
        deep: Check every value as well: numbers are finite and in range, boxes within their images,
            texts valid and not empty, keys those of the texts.

    A running job or compact changes what is being checked. Then the check is repeated, and an error
    is reported only if two checks in a row have found it.
    """
    before: frozenset[tuple[str, str]] | None = None
    for _ in range(TRIES):
        ledger.refresh()
        plan.refresh()
        state = ledger.state()
        check = _Check(ledger, plan, checksums, deep)
        gone: Exception | None = None
        try:
            check.run()
        except (FileNotFoundError, MissingFileError) as exc:  # a manifest, or rows of a file
            gone = exc
        report = VerifyReport(
            files=check.n_files,
            bytes=check.n_bytes,
            counts=check.tally.counts,
            findings=tuple(check.findings),
        )
        if not ledger.has_moved(state):
            if gone is not None:
                raise MissingFileError(f"{ledger.store.uri}: {gone}") from gone
            return report
        errors = {(f.code, f.where) for f in report.findings if f.severity == "error"}
        if gone is None and not errors:
            return report
        if gone is None and before is not None and errors & before:
            lasting = [
                f for f in report.findings if f.severity != "error" or (f.code, f.where) in before
            ]
            return replace(report, findings=tuple(lasting))
        before = frozenset(errors) if gone is None else None
    raise AbortedError(f"{ledger.store.uri}: other drivers keep rewriting it; verify again")


@dataclass
class _Tally:
    """Sums over the rows themselves, image by image."""

    index: IdIndex = field(default_factory=IdIndex)
    n_words: list[np.ndarray] = field(default_factory=list)
    failed: list[np.ndarray] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


class _Check:
    def __init__(self, ledger: Ledger, plan: Plan, checksums: bool, deep: bool) -> None:
        self._ledger = ledger
        self._plan = plan
        self._checksums = checksums
        self._deep = deep
        self._sizes: list[np.ndarray] = []  # [2, images] of each batch: width, height
        self.findings: list[Violation] = []
        self.tally = _Tally()
        self.n_files = 0
        self.n_bytes = 0
        self._planned = np.zeros(len(plan.index()), dtype=bool)  # has its row

    def run(self) -> None:
        parts: dict[str, list[DataFile]] = {table: [] for table in SCHEMAS}
        for part in self._ledger.files():
            parts[part.table].append(part)
        sound = {part.path for table in parts.values() for part in table if self._file(part)}
        by_text = [part for part in self._ledger.snapshot.by_text if self._file(part)]
        readable = {t: [p for p in found if p.path in sound] for t, found in parts.items()}
        for part in readable["images"]:
            self._images(part)
        self._words(readable["words"])
        self._errors(readable["errors"])
        if self._deep:
            self._by_text(by_text)
        self._commit_records()
        self._plan_rows()
        self._litter()

    def _say(self, code: str, where: str, message: str, severity: str = "error") -> None:
        self.findings.append(Violation(severity, code, where, message))

    def _file(self, part: DataFile) -> bool:
        """Whether a file is what its record says; only then are its rows read."""
        store = self._ledger.store
        self.n_files += 1
        try:
            size = store.size(part.path)
            self.n_bytes += size
            if size != part.bytes:
                self._say("size", part.path, f"{size} bytes instead of {part.bytes}")
                return False
            with store.open_read(part.path) as file:
                if self._checksums:
                    if sha256_of(file) != part.sha256:
                        self._say("checksum", part.path, "its bytes have changed since the commit")
                        return False
                    file.seek(0, io.SEEK_SET)
                parquet = pq.ParquetFile(file)
                rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
        except FileNotFoundError:
            self._say("missing", part.path, "is committed, but not there")
            return False
        except (StorageError, OSError, pa.ArrowException) as exc:
            self._say("unreadable", part.path, reason_of(exc))
            return False
        if rows != part.rows:
            self._say("rows", part.path, f"{rows} rows instead of {part.rows}")
        version = file_version(schema)
        if version > TABLE_VERSION:
            self._say("version", part.path, f"is of table version {version}")
        if not schema.equals(schema_of(part.table, version)):
            self._say("schema", part.path, f"its columns are not those of version {version}")
            return False
        return True

    def _rows(self, part: DataFile, columns: list[str]) -> Iterator[pa.Table]:
        """Rows of a file; if ``deep``, their values are checked on the way."""
        try:
            for rows in read_data_file(self._ledger.store, part, None if self._deep else columns):
                if self._deep:
                    self._values(part, rows)
                yield rows
        except MissingFileError:
            raise
        except StorageError as exc:
            self._say("unreadable", part.path, str(exc))

    def _values(self, part: DataFile, rows: pa.Table) -> None:
        try:
            rows.validate(full=True)
        except pa.ArrowException as exc:
            self._say("value", part.path, reason_of(exc))
            return
        faults = list(values.null_faults(rows, part.table))
        if part.table == "images":
            faults += values.image_faults(rows)
        elif part.table == "errors":
            faults += values.error_faults(rows)
        else:
            codes, names = _codes(rows.column("image_id"))
            sizes = np.concatenate([*self._sizes, np.full((2, 1), -1)], axis=1)
            # Words without an image get index -1: the last entry, of unknown size.
            width, height = sizes[:, self.tally.index.find(*hash_ids(names))[codes]]
            faults += values.word_faults(rows, width, height)
        for message, wrong in faults:
            if wrong.any():
                self._name("value", part.path, rows.column("image_id").to_pylist(), wrong, message)

    def _by_text(self, parts: list[DataFile]) -> None:
        """Whether the sorted copy has the words of the base, and is sorted."""
        base = [p for p in self._ledger.snapshot.base if p.table == "words"]
        expected, got = sum(p.rows for p in base), sum(p.rows for p in parts)
        if expected != got:
            self._say("by_text", "words_by_text", f"{got} rows instead of {expected}")
        last, broken = ("", ""), False
        for part in parts:
            for rows in read_data_file(self._ledger.store, part):
                self._values(part, rows)
                falls, last = values.out_of_order(rows, last)
                broken = broken or falls
        if broken:
            message = "is not in the order of text_key and text: look-ups take longer; compact"
            self._say("by_text", "words_by_text", message, "note")

    def _images(self, part: DataFile) -> None:
        for rows in self._rows(part, ["image_id", "page", "n_words", "status"]):
            ids = rows.column("image_id").to_pylist()
            pages = rows.column("page").to_numpy()
            n_words = rows.column("n_words").to_numpy()
            status = rows.column("status").to_numpy(zero_copy_only=False).astype(str)
            failed, with_words = status == Status.FAILED, status == Status.WORDS
            hi, lo = hash_ids(ids)
            first = np.zeros(len(ids), dtype=bool)
            first[_first_rows(hi, lo)] = True
            known = (self.tally.index.find(hi, lo) >= 0) | ~first
            self._name("duplicate", part.path, ids, known, "is there more than once")
            wrong = (with_words != (n_words > 0)) | (n_words < 0)
            self._name("status", part.path, ids, wrong, "has a status at odds with n_words")
            new = ~known
            self.tally.index.add(hi[new], lo[new])
            if self._deep:
                sizes = [pc.fill_null(rows.column(n), -1).to_numpy() for n in ("width", "height")]
                self._sizes.append(np.stack(sizes)[:, new])
            self.tally.n_words.append(n_words[new].astype(np.int64))
            self.tally.failed.append(failed[new])
            self.tally.counts += Counts(
                items=int((pages[new] == 0).sum()),
                images=int(new.sum()),
                with_words=int(with_words[new].sum()),
                empty=int((status[new] == Status.EMPTY).sum()),
                failed=int(failed[new].sum()),
            )
            self._mark_planned(part, ids, pages)

    def _mark_planned(self, part: DataFile, ids: list[str], pages: np.ndarray) -> None:
        later = np.flatnonzero(pages > 0)
        items = list(ids)
        for row in later:
            items[row] = item_id(ids[row], int(pages[row]))
        found = self._plan.index().find(*hash_ids(items))
        self._name("unplanned", part.path, ids, found < 0, "is in no segment of the plan")
        self._planned[found[(found >= 0) & (pages == 0)]] = True

    def _words(self, parts: list[DataFile]) -> None:
        counted = np.zeros(len(self.tally.index), np.int64)
        indexes = np.zeros(len(self.tally.index), np.int64)
        for part in parts:
            for rows in self._rows(part, ["image_id", "word_index"]):
                self.tally.counts += Counts(words=rows.num_rows)
                codes, names = _codes(rows.column("image_id"))
                at = self.tally.index.find(*hash_ids(names))
                self._name("orphan", part.path, names, at < 0, "has words, but no row in images")
                per_name = np.bincount(codes, minlength=len(names))
                sums = np.bincount(
                    codes, weights=rows.column("word_index").to_numpy(), minlength=len(names)
                )
                np.add.at(counted, at[at >= 0], per_name[at >= 0])
                np.add.at(indexes, at[at >= 0], sums[at >= 0].astype(np.int64))
        n_words = np.concatenate([*self.tally.n_words, np.zeros(0, np.int64)])
        wrong = int(np.count_nonzero(counted != n_words))
        if wrong:
            self._say("n_words", "words", f"{wrong} images have other words than n_words says")
        # 0 + 1 + ... + (n - 1): no index is there twice or left out.
        wrong = int(np.count_nonzero(indexes != counted * (counted - 1) // 2))
        if wrong:
            self._say("word_index", "words", f"{wrong} images have gaps or repeats in word_index")

    def _errors(self, parts: list[DataFile]) -> None:
        counted = np.zeros(len(self.tally.index), np.int64)
        for part in parts:
            for rows in self._rows(part, ["image_id", "kind"]):
                names = rows.column("image_id").to_pylist()
                at = self.tally.index.find(*hash_ids(names))
                self._name("orphan", part.path, names, at < 0, "has an error, but no row in images")
                np.add.at(counted, at[at >= 0], 1)
                kinds = pc.value_counts(rows.column("kind")).to_pylist()
                failures = {kind["values"]: kind["counts"] for kind in kinds}
                self.tally.counts += Counts(failures=failures)
        failed = np.concatenate([*self.tally.failed, np.zeros(0, dtype=bool)])
        wrong = int(np.count_nonzero(counted != failed))
        if wrong:
            self._say("errors", "errors", f"{wrong} images have no or several rows for a failure")

    def _commit_records(self) -> None:
        for record in self._ledger.commit_records():
            if record.fingerprint != self._ledger.digest:
                self._say("fingerprint", record.path, "was made with other settings than the table")
            if record.compaction >= 0:
                continue
            rows = {table: 0 for table in SCHEMAS}
            for part in record.files:
                rows[part.table] += part.rows
            counts = record.counts
            said = {"words": counts.words, "images": counts.images, "errors": counts.failed}
            if rows != said:
                self._say("counts", record.path, f"its files have {rows} rows, it says {said}")
        counts, tally = self._ledger.counts(), self.tally.counts
        if counts != tally and not any(f.severity == "error" for f in self.findings):
            self._say("counts", "ledger", f"records say {counts}, rows are {tally}")

    def _plan_rows(self) -> None:
        settled = self._ledger.settled()
        due = self._plan.settled_rows(settled)
        forgotten = self._ledger.forgotten()
        at = self._plan.index().find(*forgotten)
        due[at[at >= 0]] = False
        missing = int(np.count_nonzero(due & ~self._planned))
        if missing:
            self._say("lost", "images", f"{missing} items of committed shards have no row")
        early = int(np.count_nonzero(self._planned & ~due))
        if early:
            self._say(
                "early",
                "images",
                f"{early} items have a row that are forgotten or in no committed shard",
            )
        unknown = sum(not self._plan.has(shard) for shard in settled)
        if unknown:
            self._say("plan", "ledger", f"{unknown} committed shards are in no segment of the plan")
        left = self._plan.n_shards - len(settled) + unknown
        if left:
            self._say("unfinished", "plan", f"still to be done: {counted(left, 'shard')}", "note")

    def _litter(self) -> None:
        named = self._ledger.paths()
        for folder in FOLDERS:
            entries = self._ledger.store.list(f"{folder}/")
            litter = [e for e in entries if e.path not in named and e.path != empty_path(folder)]
            if litter:
                size = sum(entry.size for entry in litter)
                message = f"{len(litter)} files ({size} bytes) do not count: see textspot clean"
                self._say("litter", folder, message, "note")

    def _name(self, code: str, where: str, ids: list[str], wrong: np.ndarray, message: str) -> None:
        rows = np.flatnonzero(wrong)
        for row in rows[:_MAX_NAMED]:
            self._say(code, where, f"{ids[row]} {message}")
        if len(rows) > _MAX_NAMED:
            self._say(code, where, f"... and {len(rows) - _MAX_NAMED} more such images")


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A text column as codes and the distinct values: image_ids repeat for every word."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _first_rows(hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
    """Row of the first of each distinct hash."""
    order = np.lexsort((lo, hi))
    hi, lo = hi[order], lo[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return order[new]
