"""Pod templates of the head and the workers: resources, identity, storage, preemption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from textspot_ray.cluster.podsize import GIB, WorkerSize
from textspot_ray.cluster.preempt import GRACE_S
from textspot_ray.errors import UsageError

Manifest = dict[str, Any]

CONFIG_DIR: Final = "/etc/textspot"
CACHE_DIR: Final = "/var/cache/textspot"  # fetched bundles, compiled models: local disk
USER_ID: Final = 1000  # the image's user
HEAD_CPUS: Final = 2
HEAD_BYTES: Final = 8 * GIB  # the driver's plan and ledger, Ray's own tables
HEAD_STORE_BYTES: Final = GIB // 2  # images and features never come here
_SHARED_SLACK: Final = GIB // 8
_PREEMPT: Final = ["python", "-m", "textspot_ray.cluster.preempt"]

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
class Volume:
    """A persistent volume claim and where it is mounted."""

    claim: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Volume:
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
    volumes: tuple[Volume, ...]
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
