"""Ships the driver's bundle to nodes that lack it: once per node, through Ray, verified by sha256.

So a published model is downloaded by one machine only, clusters without internet access work, and
no node runs files that differ from those in the table's fingerprint.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from textspot_ray.engine.sizing import Threads
from textspot_ray.engine.slot.ports import BundleModels, Detects, Reads
from textspot_ray.engine.slot.slot import Job
from textspot_ray.errors import BundleError
from textspot_ray.spotting.bundle import BUNDLE_FILE, Bundle, cache_folder, spec_text
from textspot_ray.spotting.catalogue import load_bundle

_LOCK_TIMEOUT_S: Final = 300.0
_GET_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class ShippedModels:
    """A recipe whose bundle travels with it.

    Attributes:
        models: The recipe on the driver's machine.
        precision: Resolved; the files of this precision are shipped.
        sha256s: Of these files, by part and suffix; a node's own bundle must have the same.
        files: References to the files' bytes (uint8) by their path in the bundle.
    """

    models: BundleModels
    precision: str
    sha256s: Mapping[str, str]
    files: Mapping[str, Any]

    def detector(self) -> Detects:
        """Compile the bundle's detector."""
        return self.local().detector()

    def recognizer(self) -> Reads:
        """Compile the bundle's encoder and decoder."""
        return self.local().recognizer()

    def sized(self, threads: Threads) -> ShippedModels:
        """With the threads of a slot."""
        return replace(self, models=self.models.sized(threads))

    def local(self) -> BundleModels:
        """The recipe on this node; the bundle is unpacked if it is not here.

        Raises:
            BundleError: It cannot be written, or arrives damaged.
        """
        settings = self.models.settings
        if self._is_here(settings.model):
            return self.models
        return replace(self.models, settings=replace(settings, model=str(self._unpacked())))

    def _is_here(self, name: str) -> bool:
        try:
            return load_bundle(name).sha256s(self.precision) == self.sha256s
        except (BundleError, KeyError):  # none, damaged, or without this precision
            return False

    def _unpacked(self) -> Path:
        state = repr((self.precision, sorted(self.sha256s.items())))
        shipped = cache_folder() / "shipped"
        folder = shipped / hashlib.sha256(state.encode()).hexdigest()[:16]
        try:
            shipped.mkdir(parents=True, exist_ok=True)
            with FileLock(shipped / f".{folder.name}.lock", timeout=_LOCK_TIMEOUT_S):
                if not self._is_sound(folder):
                    self._unpack(folder)
        except Timeout as exc:
            raise BundleError(f"{folder} stays locked; delete its lock file") from exc
        except OSError as exc:
            raise BundleError(
                f"the model cannot be written on this node: {folder}: {exc.strerror or exc}; "
                "TEXTSPOT_CACHE names another place"
            ) from exc
        return folder

    def _is_sound(self, folder: Path) -> bool:
        try:
            load_bundle(str(folder)).verify(self.precision)
        except BundleError:
            return False
        return True

    def _unpack(self, folder: Path) -> None:
        """Write the files to a temporary folder, verify them, and move them into place."""
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder.parent) as work:
            incoming = Path(work) / "bundle"
            for name, ref in self.files.items():
                path = incoming / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(ray.get(ref, timeout=_GET_TIMEOUT_S).data)
            load_bundle(str(incoming)).verify(self.precision)
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            incoming.replace(folder)


def ship_bundle(job: Job) -> Job:
    """The job with its bundle in Ray's object store, for nodes that lack it.

    The objects live as long as the driver, like the job. Recipes without a bundle (in tests) are
    returned unchanged.

    Raises:
        BundleError: The bundle cannot be read.
    """
    models = job.recipe.models
    if not isinstance(models, BundleModels):
        return job
    bundle = load_bundle(models.settings.model)
    precision = bundle.resolve_precision(models.settings.precision)
    shipped = ShippedModels(
        models,
        precision,
        bundle.sha256s(precision),
        {name: ray.put(data) for name, data in _files(bundle, precision)},
    )
    return replace(job, recipe=replace(job.recipe, models=shipped))


def _files(bundle: Bundle, precision: str) -> list[tuple[str, NDArray[np.uint8]]]:
    """The bundle's description, which not every bundle has as a file, and its files."""
    described = np.frombuffer(spec_text(bundle.spec).encode(), np.uint8)
    files = {file.file: bundle.path(file) for file in bundle.model_files(precision).files()}
    return [
        (BUNDLE_FILE, described),
        *((name, np.fromfile(path, np.uint8)) for name, path in files.items()),
    ]
