"""Kubernetes manifests for KubeRay, rendered from the configuration of the run itself.

Field names and meanings: KubeRay's ``ray.io/v1`` types (RayJob, RayCluster), which
``tests/helpers/crd_fields.py`` states again for the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from textspot_ray.archive.filesystem import LOCAL, split_uri
from textspot_ray.cluster.pods import CONFIG_DIR, HEAD_STORE_BYTES, Pods, Volume
from textspot_ray.cluster.podsize import WorkerSize, worker_size
from textspot_ray.config import REDACTED, RunConfig, config_to_dict, dump_config, with_overrides
from textspot_ray.errors import UsageError
from textspot_ray.spotting.bundle import PUBLISHED

Manifest = dict[str, Any]

DEFAULT_IMAGE: Final = "textspot-ray:0.1.0"
SUBMITTER_RETRIES: Final = 2  # only of sending the job; the job's own are `retries`
IDLE_S: Final = 120  # a worker without a slot goes after this
PENDING_S: Final = 900.0  # a new cloud node takes minutes to come


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
    volumes: tuple[Volume, ...] = ()
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
    entry = ["python", "-m", "textspot_ray.cluster.jobentry"]
    entry += ["run", "--config", f"{CONFIG_DIR}/run.yaml"]
    job: Manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(options),
        "spec": {
            "entrypoint": " ".join(entry),
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": SUBMITTER_RETRIES},
            "backoffLimit": options.retries,
            "activeDeadlineSeconds": options.deadline_s,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": options.ttl_s,
            **({"suspend": True} if options.queue else {}),
            "rayClusterSpec": _cluster_spec(config, options, size),
        },
    }
    return [_config_map(inside, options), job]


def render_cluster(config: RunConfig, options: KubeOptions) -> list[Manifest]:
    """A RayCluster that stays, for `textspot submit` to its Jobs API.

    Raises:
        UsageError: As `render_job`.
    """
    size = worker_size(options.worker_cpus, config.engine)
    inside = configure(config, options, size)
    cluster: Manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(options),
        "spec": _cluster_spec(config, options, size),
    }
    return [_config_map(inside, options), cluster]


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
    if name != "embedded" and name not in PUBLISHED:
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
    """A configuration that leaves this machine must not carry credentials.

    Raises:
        UsageError: It holds a value whose name looks like a secret's.
    """
    data = config_to_dict(config)
    for section in ("source", "output"):
        found = _find_redacted(data[section]["storage_options"])
        if found:
            raise UsageError(
                f"{section}.storage_options.{found} looks like a secret and would be stored with "
                "the job: take it out and give it to the cluster by environment, a Kubernetes "
                "Secret (--secret NAME) or the provider's own identity"
            )
    for uri in (*config.source.uris, config.output.uri):
        scheme, _, rest = uri.partition("://")
        if ":" in rest.partition("/")[0].rpartition("@")[0]:
            raise UsageError(
                f"a {scheme}:// URI holds a password and would be stored with the job: take it "
                "out, and use a source that the nodes may read by their own identity"
            )


def dump(manifests: list[Manifest], header: str = "") -> str:
    """The manifests as one YAML stream, in reading order, multi-line text as blocks."""
    body = yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True, indent=2
    )
    return "".join(f"# {line}\n" for line in header.splitlines()) + body


def _cluster_spec(config: RunConfig, options: KubeOptions, size: WorkerSize) -> Manifest:
    pods = Pods(
        image=options.image,
        secrets=options.secrets,
        service_account=options.service_account,
        volumes=options.volumes,
        config_map=options.name,
        fetch_model=config.model.name if config.model.name in PUBLISHED else None,
    )
    # Kueue admits a job whole: it must know all pods it will have
    least = options.max_workers if options.queue else options.min_workers
    scales = least < options.max_workers
    worker: Manifest = {
        "groupName": "workers",
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": options.max_workers,
        "rayStartParams": {
            "num-cpus": str(size.cpus),
            "num-gpus": "0",
            "object-store-memory": str(size.object_store_bytes),
            "metrics-export-port": "8080",
        },
        "template": pods.worker(size, spot=options.spot),
    }
    head: Manifest = {
        "rayStartParams": {
            "num-cpus": "0",  # the driver's cores are its own: no slot may take them
            "num-gpus": "0",
            "object-store-memory": str(HEAD_STORE_BYTES),
            "dashboard-host": "0.0.0.0",
            "metrics-export-port": "8080",
        },
        "template": pods.head(),
    }
    spec: Manifest = {"rayVersion": version("ray")}
    if scales:
        spec["enableInTreeAutoscaling"] = True
        spec["autoscalerOptions"] = {
            "idleTimeoutSeconds": IDLE_S,
            "upscalingMode": "Default",
            "resources": {
                "requests": {"cpu": "500m", "memory": "512Mi"},
                "limits": {"cpu": "500m", "memory": "512Mi"},
            },
        }
    return {**spec, "headGroupSpec": head, "workerGroupSpecs": [worker]}


def _config_map(config: RunConfig, options: KubeOptions) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(options, queued=False),
        "data": {"run.yaml": dump_config(config)},
    }


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


def _find_redacted(value: Any, path: str = "") -> str:
    if value == REDACTED:
        return path
    if isinstance(value, dict):
        for key, child in value.items():
            if found := _find_redacted(child, f"{path}.{key}" if path else str(key)):
                return found
    return ""


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
