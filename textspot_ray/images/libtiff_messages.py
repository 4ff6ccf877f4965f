"""What libtiff says of a file while Pillow decodes it.

libtiff prints its errors on standard error and often goes on: a fax page with a bad code word, or
a Deflate strip whose checksum is wrong, comes out without an exception. Pillow has no way to ask
for the messages. libtiff has: a handler for the process, which is set here once, on the copy of
the library that Pillow has loaded, and which keeps messages apart by thread. Where that copy is
not found (a static build) nothing is collected and nothing is lost but the hint.

Warnings do not come: Pillow switches them off with every image that it opens.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MAX_MESSAGES = 20
_BUFFER_BYTES = 512
_LOCK = threading.Lock()
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


class _Collector:
    """Holds the handler, which must live as long as the library."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._tried = False
        self._kept: list[Any] = []

    @contextmanager
    def collect(self) -> Iterator[list[str]]:
        """A list that this thread's messages are put into."""
        with _LOCK:
            if not self._tried:
                self._tried = True
                self._install()
        before = getattr(self._here, "messages", None)
        messages: list[str] = []
        self._here.messages = messages
        try:
            yield messages
        finally:
            self._here.messages = before

    def _install(self) -> None:
        path = _loaded_libtiff()
        if path is None:
            return
        try:
            library, c_library = ctypes.CDLL(path), ctypes.CDLL(None)
            set_handler, format_text = library.TIFFSetErrorHandler, c_library.vsnprintf
        except (OSError, AttributeError):
            return
        format_text.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_char_p,
            ctypes.c_void_p,  # a va_list is passed as a pointer on x86-64, arm64 and their like
        ]
        set_handler.argtypes, set_handler.restype = [_HANDLER], ctypes.c_void_p

        def handle(module: bytes | None, form: bytes, arguments: int) -> None:
            messages = getattr(self._here, "messages", None)
            if messages is None or len(messages) >= _MAX_MESSAGES:
                return
            buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
            format_text(buffer, _BUFFER_BYTES, form, arguments)
            text = buffer.value.decode("utf-8", "replace")
            where = (module or b"").decode("utf-8", "replace")
            named = where and where != "tempfile.tif"  # Pillow's name for every file
            messages.append(" ".join((f"{where}: {text}" if named else text).split()))

        handler = _HANDLER(handle)
        self._kept = [library, handler]
        set_handler(handler)


def _loaded_libtiff() -> str | None:
    """Path of the libtiff that Pillow's module has brought into this process."""
    from PIL import _imaging

    if sys.platform.startswith("linux"):
        try:
            lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        # OpenCV and others may have copies of their own: Pillow's lies in its folder, or is the
        # system's.
        paths = {line.split(None, 5)[5] for line in lines if "libtiff" in line}
        mine = [path for path in paths if "pillow.libs" in path]
        return next(iter(mine or sorted(paths)), None)
    folder = Path(_imaging.__file__).parent / ".dylibs"
    return next((str(path) for path in folder.glob("libtiff*")), None)


_COLLECTOR = _Collector()


def libtiff_messages() -> Any:
    """Context in which libtiff's errors in this thread are collected; gives the list of them."""
    return _COLLECTOR.collect()
