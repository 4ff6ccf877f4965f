"""Kubernetes manifests for KubeRay, from templates and the configuration of a run.

What is the same in every manifest stands in ``templates/*.yaml``; this module sets what a run and
its sizes decide. Field names and meanings: KubeRay's ``ray.io/v1`` types (RayJob, RayCluster).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from textspot_ray.config import RunConfig, dump_config, unsafe_keys, with_overrides
from textspot_ray.deploy.pod_size import GIB, WorkerSize, worker_size
from textspot_ray.deploy.pre_stop import GRACE_S
from textspot_ray.errors import UsageError
from textspot_ray.spotting.catalogue import published_names
from textspot_ray.storage.filesystem import LOCAL, split_uri

Manifest = dict[str, Any]

DEFAULT_IMAGE: Final = "textspot-ray:0.1.0"
PENDING_S: Final = 900.0  # a new cloud node takes minutes to come
HEAD_CPUS: Final = 2
HEAD_BYTES: Final = 8 * GIB  # the driver's plan and ledger, Ray's own tables
HEAD_STORE_BYTES: Final = GIB // 2  # images and features never come here
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
    """What the manifest says that a run's configuration does not.

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
    inside = configure(config, options, size)
    job = _template("rayjob")
    _patch(
        job,
        {
            "metadata": _metadata(options),
            "spec.backoffLimit": options.retries,
            "spec.activeDeadlineSeconds": options.deadline_s,
            "spec.ttlSecondsAfterFinished": options.ttl_s,
            "spec.suspend": bool(options.queue) or None,
            "spec.rayClusterSpec": _cluster(config, options, size)["spec"],
        },
    )
    return [_config_map(inside, options), job]


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
    if name != "embedded" and name not in published_names():
        _refuse_local("model ", name, mounts)
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
    """A configuration that leaves this machine must be harmless, as far as can be proved.

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
    scales = min_workers < options.max_workers
    cluster = _template("raycluster")
    head, worker = "spec.headGroupSpec", "spec.workerGroupSpecs.0"
    changes: dict[str, Any] = {
        "metadata": _metadata(options),
        "spec.rayVersion": version("ray"),
        f"{head}.rayStartParams.object-store-memory": str(HEAD_STORE_BYTES),
        f"{head}.template": _head_pod(config, options),
        f"{worker}.replicas": min_workers,
        f"{worker}.minReplicas": min_workers,
        f"{worker}.maxReplicas": options.max_workers,
        f"{worker}.rayStartParams.num-cpus": str(size.cpus),
        f"{worker}.rayStartParams.object-store-memory": str(size.object_store_bytes),
        f"{worker}.template": _worker_pod(config, options, size),
    }
    if not scales:
        changes |= {"spec.enableInTreeAutoscaling": None, "spec.autoscalerOptions": None}
    _patch(cluster, changes)
    return cluster


def _head_pod(config: RunConfig, options: KubeOptions) -> Manifest:
    """The pod of the head and the driver; never on a node that may be taken away."""
    ports = {"gcs": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
    pod = _pod("head", config, options, ports, HEAD_CPUS, HEAD_BYTES, HEAD_STORE_BYTES)
    pod["spec"] |= _template("spot")["head"]
    return pod


def _worker_pod(config: RunConfig, options: KubeOptions, size: WorkerSize) -> Manifest:
    pod = _pod(
        "worker",
        config,
        options,
        {"metrics": 8080},
        size.cpus,
        size.memory_bytes,
        size.object_store_bytes,
    )
    if options.spot:
        pod["spec"] |= _template("spot")["worker"]
    return pod


def _pod(
    role: str,
    config: RunConfig,
    options: KubeOptions,
    ports: Mapping[str, int],
    cpus: int,
    memory_bytes: int,
    store_bytes: int,
) -> Manifest:
    pod = _template("pod")
    amount = {"cpu": str(cpus), "memory": _mebibytes(memory_bytes)}
    env_from = [{"secretRef": {"name": secret}} for secret in options.secrets] or None
    container, init = "spec.containers.0", "spec.initContainers.0"
    changes: dict[str, Any] = {
        "metadata.labels.textspot-ray/role": role,
        "spec.terminationGracePeriodSeconds": GRACE_S,
        "spec.serviceAccountName": options.service_account,
        f"{container}.name": f"ray-{role}",
        f"{container}.image": options.image,
        f"{container}.ports": [{"name": n, "containerPort": p} for n, p in ports.items()],
        f"{container}.resources.requests": dict(amount),
        f"{container}.resources.limits": dict(amount),
        f"{container}.envFrom": env_from,
        "spec.volumes.0.configMap.name": options.name,
        "spec.volumes.2.emptyDir.sizeLimit": _mebibytes(store_bytes + _SHARED_SLACK),
    }
    if config.model.name in published_names():
        changes |= {
            f"{init}.image": options.image,
            f"{init}.command.5": config.model.name,
            f"{init}.envFrom": env_from,
        }
    else:
        changes["spec.initContainers"] = None
    _patch(pod, changes)
    for place, volume in enumerate(options.volumes):
        name = f"volume-{place}"
        pod["spec"]["containers"][0]["volumeMounts"].append(
            {"name": name, "mountPath": volume.path}
        )
        pod["spec"]["volumes"].append(
            {"name": name, "persistentVolumeClaim": {"claimName": volume.claim}}
        )
    return pod


def _config_map(config: RunConfig, options: KubeOptions) -> Manifest:
    config_map = _template("configmap")
    changes = {
        "metadata": _metadata(options, queued=False),
        "data": {"run.yaml": dump_config(config)},
    }
    _patch(config_map, changes)
    return config_map


def _template(name: str) -> Manifest:
    text = resources.files(__package__).joinpath("templates", f"{name}.yaml").read_text("utf-8")
    loaded: Manifest = yaml.safe_load(text)
    return loaded


def _patch(manifest: Manifest, changes: Mapping[str, Any]) -> None:
    """Set values by dotted paths; None takes the key out.

    Raises:
        KeyError, IndexError: The template has no such place.
    """
    for path, value in changes.items():
        *places, last = path.split(".")
        node: Any = manifest
        for place in places:
            node = node[int(place) if isinstance(node, list) else place]
        key = int(last) if isinstance(node, list) else last
        node[key]  # must be in the template
        if value is None:
            del node[key]
        else:
            node[key] = value


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20)}Mi"


def _metadata(options: KubeOptions, queued: bool = True) -> Manifest:
    labels = {
        "app.kubernetes.io/name": "textspot-ray",
        "app.kubernetes.io/instance": options.name,
    }
    if options.queue and queued:
        labels["kueue.x-k8s.io/queue-name"] = options.queue
    namespace = {"namespace": options.namespace} if options.namespace else {}
    return {"name": options.name, **namespace, "labels": labels}


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
