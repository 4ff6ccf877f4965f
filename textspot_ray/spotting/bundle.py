"""A bundle: one folder with three IRs and ``bundle.yaml``, which says what they are.

``bundle.yaml``, schema 1::

    schema: 1
    name: text-spotting-0003
    version: "2021.2"
    alphabet: abcdefghijklmnopqrstuvwxyz0123456789   # symbol i + 2 is alphabet[i]; 0 start, 1 end
    max_steps: 28                 # decoder steps a word at most
    detection_threshold: 0.5      # rows at or below this score are dropped
    graph_threshold: 0.5          # score threshold inside the detector's graph, if any
    text_threshold: 0.5           # default of --min-confidence when tables are read
    resize: stretch               # stretch | keep_aspect (zeros at the bottom and right)
    interpolation: linear         # linear | area
    default_precision: f32        # a key of precisions, or bf16
    precisions:                   # which files serve which precision; bf16 runs on f32's files
      f32:
        detector: {xml: {file: detector.xml, sha256: ...}, bin: {file: detector.bin, sha256: ...}}
        encoder: {...}
        decoder: {...}
    licence: Apache-2.0
    provenance: {...}             # free: where it came from
    accuracy: {...}               # free: measured figures, each with its command

Every file is checked against its sha256 before anything is loaded from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from textspot_ray.errors import BundleError

SCHEMA = 1
PARTS = ("detector", "encoder", "decoder")
PRECISIONS = ("f32", "bf16", "int8")
BUNDLE_FILE = "bundle.yaml"
PUBLISHED = ("text-spotting-0003", "text-spotting-0004", "text-spotting-0005")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle: its path inside the folder and its sha256."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PartFiles:
    """The two files of an IR."""

    xml: BundleFile
    bin: BundleFile


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The three parts of the composite."""

    detector: PartFiles
    encoder: PartFiles
    decoder: PartFiles

    def files(self) -> tuple[BundleFile, ...]:
        """All six files."""
        parts = (self.detector, self.encoder, self.decoder)
        return tuple(file for part in parts for file in (part.xml, part.bin))


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """What ``bundle.yaml`` says; see the module's text for the keys."""

    name: str
    version: str
    alphabet: str
    precisions: Mapping[str, ModelFiles]
    max_steps: int = 28
    detection_threshold: float = 0.5
    graph_threshold: float = 0.0
    text_threshold: float = 0.0
    resize: str = "stretch"
    interpolation: str = "linear"
    default_precision: str = "f32"
    licence: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on local disk."""

    folder: Path
    spec: BundleSpec

    def resolve_precision(self, wanted: str | None) -> str:
        """The precision to run at.

        Raises:
            BundleError: The bundle has no files for it.
        """
        precision = wanted or self.spec.default_precision
        if precision in self.spec.precisions:
            return precision
        if precision == "bf16" and "f32" in self.spec.precisions:
            return precision
        have = ", ".join(sorted({*self.spec.precisions, "bf16"}))
        raise BundleError(f"bundle {self.spec.name} has no {precision} files; it has {have}")

    def model_files(self, precision: str) -> ModelFiles:
        """The files that serve a resolved precision."""
        return self.spec.precisions.get(precision) or self.spec.precisions["f32"]

    def path(self, file: BundleFile) -> Path:
        """Where a file lies."""
        return self.folder / file.file

    def sha256s(self, precision: str) -> dict[str, str]:
        """Stated sha256 of each file that serves a precision, by part and suffix."""
        files = self.model_files(precision)
        return {
            f"{part}.{suffix}": getattr(getattr(files, part), suffix).sha256
            for part in PARTS
            for suffix in ("xml", "bin")
        }

    def verify(self, precision: str) -> None:
        """Check the files that serve a precision, before anything is loaded from them.

        Raises:
            BundleError: A file is missing or its sha256 differs.
        """
        for file in self.model_files(precision).files():
            path = self.path(file)
            try:
                with path.open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as exc:
                raise BundleError(
                    f"bundle {self.spec.name}: cannot read {path}: {exc.strerror}"
                ) from exc
            if found != file.sha256:
                raise BundleError(
                    f"{path} is damaged or not the file that {BUNDLE_FILE} names: its sha256 "
                    "differs; fetch or export the bundle again"
                )


def embedded_folder() -> Path:
    """Folder of the bundle that ships in the package."""
    return Path(__file__).parent.parent / "models" / "embedded"


def cache_folder() -> Path:
    """Where fetched bundles and compiled models go: ``TEXTSPOT_CACHE``, or the user's cache."""
    import os

    import platformdirs

    chosen = os.environ.get("TEXTSPOT_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("textspot-ray"))


def load_bundle(name: str, cache: Path | None = None) -> Bundle:
    """Find a bundle by name or folder and read its ``bundle.yaml`` (not yet its files).

    Args:
        name: ``embedded``, a published model's name (looked for in the cache), or a folder.
        cache: Instead of `cache_folder`.

    Raises:
        BundleError: There is no such bundle, or its description is wrong.
    """
    if name == "embedded":
        folder = embedded_folder()
    elif name in PUBLISHED:
        folder = (cache or cache_folder()) / "models" / name
        if not (folder / BUNDLE_FILE).is_file():
            raise BundleError(f"{name} is not here yet: textspot models fetch {name}")
    else:
        folder = Path(name)
        if not folder.is_dir():
            raise BundleError(
                f"no model bundle {name!r}: it is neither embedded, {', '.join(PUBLISHED)} "
                "nor a folder"
            )
    return Bundle(folder, read_spec(folder / BUNDLE_FILE))


def read_spec(path: Path) -> BundleSpec:
    """Read and check a ``bundle.yaml``.

    Raises:
        BundleError: It is missing, no YAML, of another schema, or a key is missing or wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise BundleError(f"no bundle at {path.parent}: cannot read {path.name}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise BundleError(f"{path} is not valid YAML") from exc
    if not isinstance(data, dict):
        raise BundleError(f"{path} must hold a mapping of keys")
    if data.pop("schema", None) != SCHEMA:
        raise BundleError(f"{path} is not of bundle schema {SCHEMA}; use a matching textspot-ray")
    try:
        return _spec(data)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        reason = f"key {exc} is missing" if isinstance(exc, KeyError) else str(exc)
        raise BundleError(f"{path}: {reason}") from exc


def write_spec(folder: Path, spec: BundleSpec) -> None:
    """Write ``bundle.yaml`` (the inverse of `read_spec`)."""
    data: dict[str, Any] = {"schema": SCHEMA}
    for name in BundleSpec.__slots__:
        value = getattr(spec, name)
        data[name] = _plain(value) if name != "precisions" else _plain_files(value)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    fresh = folder / f".{BUNDLE_FILE}.new"
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(folder / BUNDLE_FILE)  # never half a description


def describe_files(folder: Path, names: Mapping[str, tuple[str, str]]) -> ModelFiles:
    """Hash the files of a folder into `ModelFiles`.

    Args:
        folder: The bundle's folder.
        names: Paths of the .xml and .bin inside it, by part.
    """

    def described(name: str) -> BundleFile:
        with (folder / name).open("rb") as stream:
            return BundleFile(name, hashlib.file_digest(stream, "sha256").hexdigest())

    return ModelFiles(
        **{p: PartFiles(described(xml), described(bin_)) for p, (xml, bin_) in names.items()}
    )


def _spec(data: dict[str, Any]) -> BundleSpec:
    unknown = set(data) - set(BundleSpec.__slots__)
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    alphabet = str(data["alphabet"])
    if not alphabet or len(set(alphabet)) != len(alphabet):
        raise ValueError("alphabet must hold distinct characters")
    listed = data["precisions"]
    if not isinstance(listed, dict) or not listed or set(listed) - set(PRECISIONS):
        raise ValueError(f"precisions must be of {', '.join(PRECISIONS)}")
    precisions = {str(k): _model_files(f"precisions.{k}", v) for k, v in listed.items()}
    for key in ("detection_threshold", "graph_threshold", "text_threshold", "max_steps"):
        value = data.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{key} must be a number, not {value!r}")
    spec = BundleSpec(
        **{
            **data,
            "name": str(data["name"]),
            "version": str(data["version"]),
            "alphabet": alphabet,
            "precisions": precisions,
        }
    )
    for key in ("detection_threshold", "graph_threshold", "text_threshold"):
        if not 0 <= float(getattr(spec, key)) < 1:
            raise ValueError(f"{key} must be in [0, 1)")
    if spec.resize not in ("stretch", "keep_aspect"):
        raise ValueError("resize must be stretch or keep_aspect")
    if spec.interpolation not in ("linear", "area"):
        raise ValueError("interpolation must be linear or area")
    if spec.default_precision not in (*precisions, "bf16"):
        raise ValueError(f"default_precision {spec.default_precision} has no files")
    if int(spec.max_steps) < 1:
        raise ValueError("max_steps must be at least 1")
    return spec


def _model_files(where: str, data: Any) -> ModelFiles:
    def file(part: str, suffix: str) -> BundleFile:
        try:
            found = data[part][suffix]
            return _bundle_file(str(found["file"]), str(found["sha256"]))
        except (KeyError, TypeError) as exc:
            raise ValueError(f"{where}.{part}.{suffix} must have file and sha256") from exc

    return ModelFiles(**{p: PartFiles(file(p, "xml"), file(p, "bin")) for p in PARTS})


def _bundle_file(file: str, sha256: str) -> BundleFile:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"file {path} leaves the bundle's folder")
    return BundleFile(str(path), sha256)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _plain_files(precisions: Mapping[str, ModelFiles]) -> dict[str, Any]:
    return {
        precision: {
            part: {
                suffix: {"file": file.file, "sha256": file.sha256}
                for suffix in ("xml", "bin")
                for file in [getattr(getattr(files, part), suffix)]
            }
            for part in PARTS
        }
        for precision, files in precisions.items()
    }
