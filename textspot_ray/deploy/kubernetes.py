"""Kubernetes manifests for KubeRay and the pods in them, rendered from the configuration of a run.

Field names and meanings: KubeRay's ``ray.io/v1`` types (RayJob, RayCluster), which
``tests/helpers/crd_fields.py`` states again for the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from textspot_ray.config import RunConfig, dump_config, unsafe_keys, with_overrides
from textspot_ray.deploy.pod_size import GIB, WorkerSize, worker_size
from textspot_ray.deploy.pre_stop import GRACE_S
from textspot_ray.errors import UsageError
from textspot_ray.spotting.bundle import published_names
from textspot_ray.storage.filesystem import LOCAL, split_uri

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
    entry = ["python", "-m", "textspot_ray.deploy.job_entry"]
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
            f"{options[0]} may be a secret and would be stored with the job: take it out and give "
            f"it to the cluster in the environment, as TEXTSPOT_STORAGE_OPTIONS or by the names "
            "that the provider's driver knows (Kubernetes: a Secret, --secret NAME), or use the "
            "nodes' own identity"
        )
    raise UsageError(
        f"{found[0]} is a URL with a password, user name or parameters, which may be secret and "
        "would be stored with the job: take them out, and use a source that the nodes may read by "
        "their own identity or with options that the cluster has in TEXTSPOT_STORAGE_OPTIONS"
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
        fetch_model=config.model.name if config.model.name in published_names() else None,
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


CONFIG_DIR: Final = "/etc/textspot"
CACHE_DIR: Final = "/var/cache/textspot"  # fetched bundles, compiled models: local disk
USER_ID: Final = 1000  # the image's user
HEAD_CPUS: Final = 2
HEAD_BYTES: Final = 8 * GIB  # the driver's plan and ledger, Ray's own tables
HEAD_STORE_BYTES: Final = GIB // 2  # images and features never come here
_SHARED_SLACK: Final = GIB // 8
_PREEMPT: Final = ["python", "-m", "textspot_ray.deploy.pre_stop"]

# Labels and taints by which the providers mark spot nodes.
SPOT_LABELS: Final = (
    ("cloud.google.com/gke-spot", "true"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("karpenter.sh/capacity-type", "spot"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
SPOT_TAINTS: Final = (
    ("cloud.google.com/gke-spot", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
    ("karpenter.sh/capacity-type", "spot"),
)


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
class Pods:
    """What head and workers have in common.

    Attributes:
        fetch_model: A published bundle that an init container brings before Ray starts.
    """

    image: str
    secrets: tuple[str, ...]
    service_account: str | None
    volumes: tuple[PodVolume, ...]
    config_map: str
    fetch_model: str | None

    def head(self) -> Manifest:
        """The pod of the head and the driver; never on a node that may be taken away."""
        ports = [("gcs", 6379), ("dashboard", 8265), ("client", 10001), ("metrics", 8080)]
        never_spot = [
            {"key": key, "operator": "NotIn", "values": [value]} for key, value in SPOT_LABELS
        ]
        spec = self._spec(
            "ray-head", HEAD_CPUS, HEAD_BYTES, HEAD_STORE_BYTES + _SHARED_SLACK, ports
        )
        spec["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": never_spot}]
                }
            }
        }
        return {"metadata": {"labels": {"textspot-ray/role": "head"}}, "spec": spec}

    def worker(self, size: WorkerSize, *, spot: bool) -> Manifest:
        """The pod of a worker."""
        spec = self._spec(
            "ray-worker",
            size.cpus,
            size.memory_bytes,
            size.object_store_bytes + _SHARED_SLACK,
            [("metrics", 8080)],
        )
        if spot:
            spec["affinity"] = {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 100,
                            "preference": {
                                "matchExpressions": [
                                    {"key": key, "operator": "In", "values": [value]}
                                ]
                            },
                        }
                        for key, value in SPOT_LABELS
                    ]
                }
            }
            spec["tolerations"] = [
                {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
                for key, value in SPOT_TAINTS
            ]
        return {"metadata": {"labels": {"textspot-ray/role": "worker"}}, "spec": spec}

    def _spec(
        self,
        name: str,
        cpus: int,
        memory_bytes: int,
        shared_bytes: int,
        ports: list[tuple[str, int]],
    ) -> Manifest:
        # requests = limits: the quality of service that is evicted last, and what Ray is told is
        # what it has
        amount = {"cpu": str(cpus), "memory": f"{-(-memory_bytes // 2**20)}Mi"}
        container: Manifest = {
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": label, "containerPort": port} for label, port in ports],
            "resources": {"requests": dict(amount), "limits": dict(amount)},
            "env": [
                {"name": "TEXTSPOT_CACHE", "value": CACHE_DIR},
                {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
            ],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "lifecycle": {"preStop": {"exec": {"command": list(_PREEMPT)}}},
            "volumeMounts": self._mounts(),
        }
        env_from = [{"secretRef": {"name": secret}} for secret in self.secrets]
        if env_from:
            container["envFrom"] = env_from
        spec: Manifest = {
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        if self.service_account:
            spec["serviceAccountName"] = self.service_account
        if self.fetch_model:
            spec["initContainers"] = [self._fetch(env_from)]
        spec["containers"] = [container]
        spec["volumes"] = self._volumes(shared_bytes)
        return spec

    def _fetch(self, env_from: list[Manifest]) -> Manifest:
        amount = {"cpu": "1", "memory": "2Gi"}
        return {
            "name": "fetch-model",
            "image": self.image,
            "command": ["python", "-m", "textspot_ray", "models", "fetch", self.fetch_model],
            "env": [{"name": "TEXTSPOT_CACHE", "value": CACHE_DIR}],
            **({"envFrom": env_from} if env_from else {}),
            "resources": {"requests": dict(amount), "limits": dict(amount)},
            "volumeMounts": [{"name": "cache", "mountPath": CACHE_DIR}],
        }

    def _mounts(self) -> list[Manifest]:
        fixed = [("config", CONFIG_DIR), ("cache", CACHE_DIR), ("shm", "/dev/shm"), ("tmp", "/tmp")]
        mounts: list[Manifest] = [{"name": name, "mountPath": path} for name, path in fixed]
        mounts[0]["readOnly"] = True
        mounts += [
            {"name": f"volume-{place}", "mountPath": volume.path}
            for place, volume in enumerate(self.volumes)
        ]
        return mounts

    def _volumes(self, shared_bytes: int) -> list[Manifest]:
        shared = f"{-(-shared_bytes // 2**20)}Mi"
        return [
            {"name": "config", "configMap": {"name": self.config_map}},
            {"name": "cache", "emptyDir": {"sizeLimit": "4Gi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}},
            *(
                {
                    "name": f"volume-{place}",
                    "persistentVolumeClaim": {"claimName": volume.claim},
                }
                for place, volume in enumerate(self.volumes)
            ),
        ]
