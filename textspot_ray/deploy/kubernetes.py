"""Kubernetes manifests for KubeRay, from templates and the configuration of a run.

Their form is in ``templates/*.yaml``; this module fills in what depends on the run and its sizes.
Field names and meanings: KubeRay's ``ray.io/v1`` types (RayJob, RayCluster).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any, Final

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from textspot_ray.config import RunConfig, dump_config, unsafe_keys, with_overrides
from textspot_ray.deploy.pod_size import GIB, WorkerSize, worker_size
from textspot_ray.deploy.pre_stop import GRACE_S
from textspot_ray.errors import UsageError
from textspot_ray.spotting.catalogue import known_names, published_names
from textspot_ray.storage.filesystem import LOCAL, split_uri

Manifest = dict[str, Any]

DEFAULT_IMAGE: Final = "textspot-ray:0.1.0"
PENDING_S: Final = 900.0  # a new cloud node takes minutes to come
HEAD: Final = WorkerSize(
    cpus=2,
    slots=0,
    cpus_per_slot=0.0,
    memory_bytes=8 * GIB,  # the driver's plan and ledger, Ray's own tables
    object_store_bytes=GIB // 2,  # images and features never come here
)
_PORTS: Final = {
    "head": {"gcs": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080},
    "worker": {"metrics": 8080},
}
_SHARED_SLACK: Final = GIB // 8


@dataclass(frozen=True, slots=True)
class PodVolume:
    """A persistent volume claim and where it is mounted."""

    claim: str
    path: str

    @classmethod
    def parse(cls, text: str) -> PodVolume:
        """From ``CLAIM:/path``.

        Raises:
            UsageError: It is not of that form.
        """
        claim, _, path = text.partition(":")
        if not claim or not path.startswith("/"):
            raise UsageError(f"--volume takes CLAIM:/path, not {text!r}")
        return cls(claim, path.rstrip("/") or "/")


@dataclass(frozen=True, slots=True)
class KubeOptions:
    """Settings of the manifest that are not in a run's configuration.

    Attributes:
        name: Of the RayJob and its ConfigMap.
        image: With this package in it; see ``infra/docker``.
        min_workers, max_workers: Worker pods; autoscaling if they differ.
        worker_cpus: Whole CPUs of a worker pod.
        secrets: Names of Secrets whose keys become environment variables (credentials).
        service_account: For workload identity, instead of secrets.
        volumes: Claims to mount.
        spot: Whether workers prefer and tolerate spot nodes.
        queue: Kueue's LocalQueue; the job starts suspended and with all its workers.
        deadline_s: After which the job is stopped, retries and all.
        ttl_s: After which a finished job's cluster is taken away.
        retries: New clusters after a failure; each goes on where the tables are.
    """

    name: str = "textspot"
    namespace: str | None = None
    image: str = DEFAULT_IMAGE
    min_workers: int = 1
    max_workers: int = 4
    worker_cpus: int = 8
    secrets: tuple[str, ...] = ()
    service_account: str | None = None
    volumes: tuple[PodVolume, ...] = ()
    spot: bool = False
    queue: str | None = None
    deadline_s: int = 7 * 24 * 3600
    ttl_s: int = 600
    retries: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.min_workers <= self.max_workers or self.max_workers < 1:
            raise UsageError(
                f"workers must be MIN-MAX with 0 <= MIN <= MAX and MAX >= 1, not "
                f"{self.min_workers}-{self.max_workers}"
            )


def render_job(config: RunConfig, options: KubeOptions) -> list[Manifest]:
    """ConfigMap and RayJob of a run: a cluster of its own, gone when the run is done.

    Raises:
        UsageError: The run cannot work in a pod: a secret in the configuration, a path that no
            volume holds, no room for a slot.
    """
    size = worker_size(options.worker_cpus, config.engine)
    config_map = _config_map(configure(config, options, size), options)
    job = _render("rayjob", options, queued=True)
    job["spec"]["rayClusterSpec"] = _cluster(config, options, size)["spec"]
    return [config_map, job]


def render_cluster(config: RunConfig, options: KubeOptions) -> list[Manifest]:
    """A RayCluster that stays, for `textspot submit` to its Jobs API.

    Raises:
        UsageError: As `render_job`.
    """
    size = worker_size(options.worker_cpus, config.engine)
    inside = configure(config, options, size)
    return [_config_map(inside, options), _cluster(config, options, size)]


def configure(config: RunConfig, options: KubeOptions, size: WorkerSize) -> RunConfig:
    """The configuration as the pods see it: join the cluster, slots that fit the workers.

    Raises:
        UsageError: As `render_job`.
    """
    refuse_secrets(config)
    mounts = [volume.path for volume in options.volumes]
    for uri in (*config.source.uris, config.output.uri):
        _refuse_local("", uri, mounts)
    name = config.model.name
    if name not in known_names():
        _refuse_local("model ", name, mounts)
    _refuse_local("words ", config.model.words or "", mounts)
    pending_s = max(config.engine.pending_timeout_s, PENDING_S)
    return with_overrides(
        config,
        (
            "engine.kind=ray",
            "engine.address=auto",
            # stated, so that slots wait for nodes to come and the autoscaler sees them waiting
            f"engine.slots={size.slots * options.max_workers}",
            f"engine.cpus_per_slot={size.cpus_per_slot!r}",
            f"engine.pending_timeout_s={pending_s!r}",
        ),
    )


def refuse_secrets(config: RunConfig) -> None:
    """Refuse a configuration that may hold secrets, before it leaves this machine.

    Raises:
        UsageError: It holds a value that `config.config_to_dict` would not show.
    """
    found = unsafe_keys(config)
    if not found:
        return
    options = [key for key in found if ".storage_options" in key]
    if options:
        raise UsageError(
            f"{options[0]} may be a secret: give it to the cluster in TEXTSPOT_STORAGE_OPTIONS "
            "(Kubernetes: --secret NAME), or use the nodes' own identity"
        )
    raise UsageError(
        f"{found[0]} is a URL with a password or parameters, which would be stored: give the "
        "nodes the right to read, or TEXTSPOT_STORAGE_OPTIONS"
    )


def dump(manifests: list[Manifest], header: str = "") -> str:
    """The manifests as one YAML stream, in reading order, multi-line text as blocks."""
    body = yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True, indent=2
    )
    return "".join(f"# {line}\n" for line in header.splitlines()) + body


def _cluster(config: RunConfig, options: KubeOptions, size: WorkerSize) -> Manifest:
    # Kueue admits a job whole: it must know all pods it will have
    min_workers = options.max_workers if options.queue else options.min_workers
    cluster = _render(
        "raycluster",
        options,
        queued=True,
        min_workers=min_workers,
        ray_version=version("ray"),
        head=HEAD,
        worker=size,
    )
    # the head's pod is never on a node that may be taken away
    spot, spec = _render("spot", options), cluster["spec"]
    head, worker = _pod("head", config, options, HEAD), _pod("worker", config, options, size)
    head["spec"] |= spot["head"]
    if options.spot:
        worker["spec"] |= spot["worker"]
    spec["headGroupSpec"]["template"] = head
    spec["workerGroupSpecs"][0]["template"] = worker
    return cluster


def _pod(role: str, config: RunConfig, options: KubeOptions, size: WorkerSize) -> Manifest:
    name = config.model.name
    return _render(
        "pod",
        options,
        role=role,
        size=size,
        memory=_mebibytes(size.memory_bytes),
        shared_memory=_mebibytes(size.object_store_bytes + _SHARED_SLACK),
        ports=_PORTS[role],
        grace_s=GRACE_S,
        fetched=name if name in published_names() else None,
    )


def _config_map(config: RunConfig, options: KubeOptions) -> Manifest:
    return _render("configmap", options, queued=False, config=dump_config(config))


def _render(name: str, options: KubeOptions, **values: Any) -> Manifest:
    template = _environment().get_template(f"{name}.yaml")
    loaded: Manifest = yaml.safe_load(template.render(values, options=options))
    return loaded


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("textspot_ray.deploy"),
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_scalar,
    )


def _scalar(value: Any) -> Any:
    """A value as YAML; text is always quoted."""
    if not isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_style='"', width=math.inf).rstrip("\n")


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20)}Mi"


def _refuse_local(what: str, uri: str, mounts: list[str]) -> None:
    if not uri:
        return
    protocol, path = split_uri(uri)
    if protocol not in (LOCAL, "memory"):
        return
    posix = PurePosixPath(path)
    if protocol == LOCAL and any(posix.is_relative_to(mount) for mount in mounts):
        return
    raise UsageError(
        f"{what}{uri} is not there in a pod: use an object store, or mount a volume that holds it "
        "(--volume CLAIM:/path)"
    )


class _Dumper(yaml.SafeDumper):
    """Blocks for text of several lines, no anchors, lists indented below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _text)
