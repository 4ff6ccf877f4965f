from __future__ import annotations

import errno

import pytest

from textspot_ray.records import ErrorKind
from textspot_ray.storage.faults import Fault, RetryPolicy, error_kind, fault_of, reason_of


class ClientError(Exception):
    """Shaped like botocore's."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class WebError(Exception):
    """Shaped like aiohttp's and gcsfs'."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class ServerDisconnectedError(Exception):
    pass


class ReadTimeoutError(Exception):
    pass


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("exc", "fault"),
    [
        (FileNotFoundError(), Fault.MISSING),
        (PermissionError(errno.EACCES, "x"), Fault.DENIED),
        (OSError(errno.ENOSPC, "x"), Fault.FULL),
        (OSError(errno.EROFS, "x"), Fault.READ_ONLY),
        (OSError(errno.EIO, "x"), Fault.TRANSIENT),
        (ConnectionResetError(), Fault.TRANSIENT),
        (TimeoutError(), Fault.TIMEOUT),
        (ReadTimeoutError(), Fault.TIMEOUT),
        (ServerDisconnectedError(), Fault.TRANSIENT),
        (WebError(403), Fault.DENIED),
        (WebError(404), Fault.MISSING),
        (WebError(429), Fault.TRANSIENT),
        (WebError(503), Fault.TRANSIENT),
        (WebError(400), Fault.OTHER),
        (ClientError("SlowDown", 503), Fault.TRANSIENT),
        (ClientError("PreconditionFailed", 412), Fault.EXISTS),
        (ClientError("ConditionalRequestConflict", 409), Fault.TRANSIENT),
        (caused(OSError(errno.EINVAL, "x"), ClientError("PreconditionFailed", 412)), Fault.EXISTS),
        (caused(FileNotFoundError("http://x"), WebError(403)), Fault.DENIED),
        (caused(FileNotFoundError("http://x"), WebError(503)), Fault.TRANSIENT),
        (caused(FileNotFoundError("s3://x"), ClientError("NoSuchKey", 404)), Fault.MISSING),
        (ValueError("code"), Fault.OTHER),
        (OSError("no number"), Fault.OTHER),
    ],
)
def test_faults(exc: Exception, fault: Fault) -> None:
    assert fault_of(exc) is fault


def test_causes_in_a_circle_end() -> None:
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    assert fault_of(a) is Fault.OTHER


def test_kinds_for_the_errors_table() -> None:
    assert error_kind(FileNotFoundError()) is ErrorKind.MISSING
    assert error_kind(WebError(401)) is ErrorKind.DENIED
    assert error_kind(ReadTimeoutError()) is ErrorKind.TIMEOUT
    assert error_kind(ValueError()) is ErrorKind.STORAGE


def test_reason_is_one_line() -> None:
    assert reason_of(OSError(errno.ENOSPC, "No space left")) == "No space left"
    assert reason_of(ValueError("a\n  b")) == "a b"
    assert reason_of(ValueError()) == "ValueError"


def test_waits_grow_and_have_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("textspot_ray.storage.faults.time.sleep", waits.append)

    def fail() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        RetryPolicy(attempts=8, base_s=1.0, max_wait_s=5.0).call(fail)
    assert len(waits) == 7
    assert all(0 <= wait <= min(5.0, 2.0**n) for n, wait in enumerate(waits))
    assert len(set(waits)) > 3
