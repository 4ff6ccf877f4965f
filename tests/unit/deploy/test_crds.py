"""Rendered manifests against the published schemas of KubeRay and Kueue, strictly.

The schemas are not part of this repository: a folder of gzipped CustomResourceDefinitions, named by
TEXTSPOT_CRDS or lying beside the checkout as ``shared/crds``. Without it these tests are skipped.
"""

from __future__ import annotations

import gzip
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from textspot_ray.config import config_from_dict
from textspot_ray.deploy.kubernetes import (
    KubeOptions,
    Manifest,
    PodVolume,
    render_cluster,
    render_job,
)

jsonschema = pytest.importorskip("jsonschema")

INFRA = Path(__file__).parents[3] / "infra" / "k8s"


@cache
def crd_folder() -> Path | None:
    named = os.environ.get("TEXTSPOT_CRDS")
    beside = [parent / "shared" / "crds" for parent in Path(__file__).resolve().parents]
    return next(
        (path for path in [*([Path(named)] if named else []), *beside] if path.is_dir()), None
    )


@cache
def schemas() -> dict[tuple[str, str], Any]:
    folder = crd_folder()
    if folder is None:
        pytest.skip("no CRD schemas: name a folder of them by TEXTSPOT_CRDS")
    found = {}
    for path in sorted(folder.glob("*.yaml.gz")):
        for crd in yaml.safe_load_all(gzip.decompress(path.read_bytes())):
            spec = crd["spec"]
            for version in spec["versions"]:
                name = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                found[name] = strict(version["schema"]["openAPIV3Schema"])
    assert found
    return found


def strict(schema: Any) -> Any:
    """The schema with every field refused that it does not name, unless it preserves such."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {
        key: {name: strict(part) for name, part in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
        if key != "format"
    }
    if "properties" in out and not out.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    if out.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
    return out


def faults(manifest: Manifest) -> list[str]:
    schema = schemas()[manifest["apiVersion"], manifest["kind"]]
    # the schema of metadata is the API server's own
    body = {key: value for key, value in manifest.items() if key != "metadata"}
    validator = jsonschema.Draft202012Validator({**schema, "required": []})
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(body)]


def manifests() -> list[Manifest]:
    plain = {"source": {"uris": ["s3://p/"]}, "output": {"uri": "s3://t/"}}
    published = {**plain, "model": {"name": "text-spotting-0003"}}
    options = [
        KubeOptions(),
        KubeOptions(
            min_workers=0,
            max_workers=9,
            spot=True,
            secrets=("a", "b"),
            service_account="reader",
            volumes=(PodVolume("archive", "/mnt"),),
            namespace="ocr",
        ),
        KubeOptions(queue="batch", min_workers=4, max_workers=4),
    ]
    return [
        manifest
        for config in (plain, published)
        for option in options
        for render in (render_job, render_cluster)
        for manifest in render(config_from_dict(config), option)
        if manifest["kind"] != "ConfigMap"
    ]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: m["kind"])
def test_what_is_rendered(manifest: Manifest) -> None:
    assert faults(manifest) == []


@pytest.mark.parametrize("path", sorted(INFRA.glob("*.yaml")), ids=lambda path: path.name)
def test_what_is_stored(path: Path) -> None:
    known = schemas()
    stored = list(yaml.safe_load_all(path.read_text()))
    for manifest in stored:
        if (manifest.get("apiVersion"), manifest.get("kind")) in known:
            assert faults(manifest) == []


def test_an_unknown_field_is_a_fault() -> None:
    manifest = manifests()[0]
    manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["container"] = []
    (fault,) = faults(manifest)
    assert "'container' was unexpected" in fault
