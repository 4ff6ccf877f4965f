"""Compiled models: threads, streams and precision are always set, and the precision read back."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from filelock import FileLock
from filelock import Timeout as FileLockTimeout

from textspot_ray.errors import BundleError, TextspotError
from textspot_ray.spotting.bundle import Bundle, cache_folder, file_sha256

_LOCK_TIMEOUT_S = 300.0
_SUMS = "sha256sums"
# int8 graphs run their unquantised parts in f32: bf16 there would differ by CPU
_HINTS = {"f32": "f32", "int8": "f32", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class Share:
    """The share of the machine that a model may use.

    Attributes:
        threads: Inference threads; 0 is refused, since OpenVINO would take every core.
        streams: Inference streams, at most ``threads``.
    """

    threads: int = 1
    streams: int = 1

    def __post_init__(self) -> None:
        if self.threads < 1 or not 1 <= self.streams <= self.threads:
            raise ValueError(f"need threads >= streams >= 1, not {self.threads}, {self.streams}")


@cache
def shared_core() -> Any:
    """The process's one OpenVINO core, kept to its end.

    A core's CPU plug-in gives the thread that creates it a signal stack, and restores the former
    one when it is destroyed. If two cores are destroyed in the order of their creation, the second
    restores that of the first, which is freed: the next signal, such as Ctrl-C, crashes Python
    (OpenVINO 2026.4).

    The binding imports numpy when it gets the first array, under its own lock and then Python's:
    two threads that pass their first arrays at once deadlock. So the first one is made here, before
    there are threads.
    """
    ov.Tensor(np.zeros(1, np.float32), shared_memory=True).data.sum()
    return ov.Core()


class Runtime:
    """Reads a bundle's IRs and compiles them for this CPU.

    Args:
        bundle: Already resolved.
        precision: A resolved precision of the bundle.
        share: Threads and streams.
        cache: Folder of compiled models; None = the user's cache; "" = none.
    """

    def __init__(
        self, bundle: Bundle, precision: str, share: Share, cache: Path | None = None
    ) -> None:
        self.bundle = bundle
        self.precision = precision
        self.share = share
        self._cache = cache

    @property
    def core(self) -> Any:
        """The OpenVINO core, made at first use."""
        return shared_core()

    def read(self, part: str) -> Any:
        """Read one part's graph.

        Raises:
            BundleError: The files cannot be read as an OpenVINO model.
        """
        files = self.bundle.model_files(self.precision)[part]
        graph = self.bundle.path(files.graph)
        if files.weights is None:
            return self._read(graph)
        weights = self.bundle.path(files.weights)
        return self._read(graph, weights)

    def _read(self, graph: Path, *weights: Path) -> Any:
        # other readers would print many errors about a file that is not ONNX
        if graph.suffix == ".onnx" and not _starts_like_onnx(graph):
            raise BundleError(f"{graph} is not an ONNX file")
        try:
            return self.core.read_model(str(graph), *map(str, weights))
        except RuntimeError as exc:
            beside = f" with {weights[0].name}" if weights else ""
            raise BundleError(f"{graph} cannot be read{beside}: {_reason(exc)}") from exc

    def compile(
        self,
        model: Any,
        *,
        share: Share | None = None,
        cached: bool = True,
        shape_entries: int | None = None,
    ) -> Any:
        """Compile a model at the runtime's precision and read the precision back.

        Args:
            model: An ``openvino.Model``.
            share: Instead of the runtime's.
            cached: Whether the compiled model may be kept on disk.
            shape_entries: For models with dynamic shapes: number of compiled operators, each for
                one shape, that are kept in memory; None = OpenVINO's 5000.

        Raises:
            BundleError: The plug-in cannot compile it.
            TextspotError: The plug-in chose another precision than asked for.
        """
        share = share or self.share
        hint = _HINTS[self.precision]
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": share.threads,
            "NUM_STREAMS": share.streams,
            # pinning would put every process of a node on the same cores
            "ENABLE_CPU_PINNING": False,
        }
        if shape_entries is not None:
            options["CPU_RUNTIME_CACHE_CAPACITY"] = shape_entries
        folder = self._compiled_folder() if cached else None
        lock: AbstractContextManager[Any] = nullcontext()
        if folder is not None:
            options["CACHE_DIR"] = str(folder)
            # two actors that start together must not read each other's half-written blob
            lock = FileLock(folder / "lock", timeout=_LOCK_TIMEOUT_S)
        try:
            with lock:
                if folder is not None:
                    _drop_unsound(folder)
                compiled = self.core.compile_model(model, "CPU", options)
                if folder is not None:
                    _note_sums(folder)
        except FileLockTimeout as exc:
            raise TextspotError(f"{folder} stays locked; delete its lock file") from exc
        except RuntimeError as exc:
            name = model.get_friendly_name()
            raise BundleError(
                f"bundle {self.bundle.spec.name}: {name} does not compile: {_reason(exc)}"
            ) from exc
        _read_back(compiled, hint, self.bundle.spec.name)
        return compiled

    def _compiled_folder(self) -> Path | None:
        """A separate folder for each set of files, precision and OpenVINO version."""
        base = cache_folder() / "compiled" if self._cache is None else self._cache
        if str(base) in ("", "."):
            return None
        state = repr((sorted(self.bundle.sha256s(self.precision).items()), self.precision))
        digest = hashlib.sha256(f"{state} {ov.__version__}".encode()).hexdigest()[:16]
        folder = base / digest
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        return folder if os.access(folder, os.W_OK) else None


def _starts_like_onnx(path: Path) -> bool:
    """Whether a file starts with the format's version, as written by all exporters."""
    try:
        with path.open("rb") as file:
            return file.read(1) == b"\x08"
    except OSError as exc:
        raise BundleError(f"cannot read {path}: {exc.strerror}") from exc


def _drop_unsound(folder: Path) -> None:
    """Delete cached models that have changed since they were written.

    OpenVINO detects a truncated file but not a changed one, and would run other weights than the
    verified ones of the bundle.
    """
    noted = _noted_sums(folder)
    for blob in folder.glob("*.blob"):
        if noted.get(blob.name) != file_sha256(blob):
            blob.unlink(missing_ok=True)


def _note_sums(folder: Path) -> None:
    noted = _noted_sums(folder)
    fresh = {
        blob.name: file_sha256(blob) for blob in folder.glob("*.blob") if blob.name not in noted
    }
    if fresh:
        lines = [f"{value}  {name}\n" for name, value in sorted({**noted, **fresh}.items())]
        part = folder / f"{_SUMS}.part"
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(folder / _SUMS)


def _noted_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.split("  ", 1) for line in lines if "  " in line)
    return {name: value for value, name in pairs if (folder / name).is_file()}


def _read_back(compiled: Any, hint: str, name: str) -> None:
    chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if chosen != hint:
        raise TextspotError(
            f"this CPU runs {name} at {chosen}, not at the {hint} asked for; "
            "ask for a precision it has (--precision f32 always works)"
        )


def _reason(exc: RuntimeError) -> str:
    """The last informative line of OpenVINO's multi-line messages."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or ["unknown reason"])[-1][:200]
