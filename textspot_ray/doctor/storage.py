"""Checks of storage: rights on sources and output, exclusive puts, the store's clock."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.doctor.finding import CheckResult, Level, fail, ok, warn
from textspot_ray.errors import MissingExtraError, TextspotError
from textspot_ray.storage.faults import RetryPolicy, hint_for, hint_of
from textspot_ray.storage.filesystem import LOCAL, split_uri
from textspot_ray.storage.stores import TMP, Store, open_store

SKEW_WARN_S: Final = 30.0  # rates and ages count in store time
SKEW_FAIL_S: Final = 840.0  # S3 and others refuse requests that are 15 minutes off
_MAX_LOOKS: Final = 10_000  # entries listed in search of one image
_MAX_LOOK_S: Final = 30.0
_RETRY: Final = RetryPolicy(attempts=3)


def check_source(uri: str, options: Mapping[str, Any] | None = None) -> Iterator[CheckResult]:
    """Whether a source, as a run takes it, can be listed and one image of it read whole."""
    from textspot_ray.records import Skipped
    from textspot_ray.sources.listing import list_items
    from textspot_ray.sources.reader import Reader

    config = SourceConfig(uris=(uri,), storage_options=dict(options or {}))
    image = ImageConfig()
    started = time.monotonic()
    try:
        found = None
        looked = 0
        for entry in list_items(config, image):
            looked += 1
            if not isinstance(entry, Skipped):
                found = entry
                break
            if looked >= _MAX_LOOKS or time.monotonic() - started > _MAX_LOOK_S:
                break
        if found is None:
            yield warn(
                "source", f"{uri}: no image among {looked} entries", "is it the right place?"
            )
            return
        with Reader(config, image) as reader:
            encoded = next(iter(reader.read([found])))
    except TextspotError as exc:
        yield _failed("source", exc)
        return
    if encoded.data is None:
        reason = encoded.error.message if encoded.error is not None else "no bytes"
        yield fail("source", f"{found.image_id}: {reason}", hint_of(reason) or "check read rights")
        return
    yield ok("source", f"{uri}: lists, and {len(encoded.data)} bytes of one image were read")


def check_output(uri: str, options: Mapping[str, Any] | None = None) -> Iterator[CheckResult]:
    """Whether the output can be written, listed, read, deleted and put exclusively.

    Nothing is left behind. The store's clock is compared with ours on the way.

    Args:
        uri: Folder of the tables.
        options: fsspec options by protocol.
    """
    folder = f"{TMP}/doctor-{secrets.token_hex(6)}"
    missing = _missing_folders(uri, folder)
    try:
        store = open_store(uri, options, retry=_RETRY)
        yield from _check_store(store, folder)
    except TextspotError as exc:
        yield _failed("output", exc)
    finally:
        for path in missing:  # deepest first; a folder that now holds something stays
            with contextlib.suppress(OSError):
                path.rmdir()


def _check_store(store: Store, folder: str) -> Iterator[CheckResult]:
    path, data = f"{folder}/probe", secrets.token_bytes(64)
    before_s = time.time()
    store.put(path, data)
    after_s = time.time()
    try:
        if store.read(path) != data:
            yield fail("output", f"{store.uri}: reads other bytes than were written", "do not use")
            return
        listed = [entry for entry in store.list(f"{folder}/") if entry.path == path]
        if not listed:
            yield fail(
                "output",
                f"{store.uri}: a file just written is not listed",
                "a cache or an eventually consistent gateway is in between: go around it",
            )
            return
    finally:
        store.delete(path)
    if store.exists(path):
        yield fail("output", f"{store.uri}: a deleted file is still there", "grant delete rights")
        return
    yield ok("output", f"{store.uri}: write, read, list and delete work")
    if store.probe_exclusive():
        yield ok("exclusive", "puts if absent: any number of drivers may share this output")
    else:
        yield warn(
            "exclusive",
            "the store cannot put exclusively",
            "run one driver at a time, with --unsafe-single-driver; s3fs 2024.6 or later and S3 "
            "since 2024 can",
        )
    yield skew_finding(listed[0].mtime, before_s, after_s)


def skew_finding(stamp_s: float, before_s: float, after_s: float) -> CheckResult:
    """The store's time stamp of a file against our clock around its writing.

    Args:
        stamp_s: Modification time; 0 = the store has none. Whole seconds in many stores.
        before_s: Our time before the put.
        after_s: Our time after it.
    """
    if not stamp_s:
        return warn("clock", "the store has no modification times", "clocks were not compared")
    skew_s = max(before_s - stamp_s - 1.0, stamp_s - after_s - 1.0, 0.0)
    text = f"{skew_s:.0f} s between this machine's clock and the store's"
    if skew_s >= SKEW_FAIL_S:
        return fail("clock", text, "set the clock (NTP): stores refuse such requests")
    if skew_s >= SKEW_WARN_S:
        return warn("clock", text, "set the clock (NTP)")
    return ok("clock", text)


def _failed(check: str, exc: TextspotError) -> CheckResult:
    # a missing extra says its own fix, and so may others; the provider's words may add one
    hint = "" if isinstance(exc, MissingExtraError) else hint_for(exc)
    return CheckResult(check, Level.FAIL, str(exc), "" if hint in str(exc) else hint)


def _missing_folders(uri: str, folder: str) -> list[Path]:
    """Folders of this machine that the check will create, the deepest first."""
    protocol, rest = split_uri(uri)
    if protocol != LOCAL:
        return []
    deepest = Path(rest).absolute() / folder
    return [path for path in (deepest, *deepest.parents) if not path.exists()]
