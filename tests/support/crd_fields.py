"""Which fields the Kubernetes objects we write may have, and of what type: our own statement.

Written after KubeRay's ``ray.io/v1`` types, Kubernetes' core ``v1`` pod types and Kueue's
``v1beta1``; only the fields we have a use for. An API server refuses or drops unknown fields, so an
unknown field here is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti|k|M|G)?\Z")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")  # RFC 1123 label
LABEL = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")


class Required:
    """A field that must be there."""

    def __init__(self, of: Any) -> None:
        self.of = of


class OneOf:
    """Text out of a fixed set."""

    def __init__(self, *values: str) -> None:
        self.values = values


class MapOf:
    """Free keys, values of one kind."""

    def __init__(self, of: Any) -> None:
        self.of = of


RESOURCES = {"requests": MapOf(QUANTITY), "limits": MapOf(QUANTITY)}
META = {
    "name": Required(NAME),
    "namespace": NAME,
    "labels": MapOf(str),
    "annotations": MapOf(str),
}
POD_META = {"labels": MapOf(str), "annotations": MapOf(str)}
EXPRESSION = {
    "key": Required(LABEL),
    "operator": Required(OneOf("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")),
    "values": [str],
}
TERM = {"matchExpressions": [EXPRESSION]}
CONTAINER = {
    "name": Required(NAME),
    "image": Required(str),
    "imagePullPolicy": OneOf("Always", "IfNotPresent", "Never"),
    "command": [str],
    "args": [str],
    "ports": [{"name": NAME, "containerPort": Required(int)}],
    "resources": RESOURCES,
    "env": [{"name": Required(str), "value": Required(str)}],
    "envFrom": [{"secretRef": {"name": Required(NAME)}}],
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "capabilities": {"drop": [str]},
    },
    "lifecycle": {"preStop": {"exec": {"command": [str]}}},
    "volumeMounts": [{"name": Required(NAME), "mountPath": Required(str), "readOnly": bool}],
}
POD = {
    "metadata": POD_META,
    "spec": Required(
        {
            "terminationGracePeriodSeconds": int,
            "serviceAccountName": NAME,
            "securityContext": {
                "runAsNonRoot": bool,
                "runAsUser": int,
                "runAsGroup": int,
                "fsGroup": int,
                "seccompProfile": {"type": OneOf("RuntimeDefault", "Unconfined", "Localhost")},
            },
            "initContainers": [CONTAINER],
            "containers": Required([CONTAINER]),
            "volumes": [
                {
                    "name": Required(NAME),
                    "configMap": {"name": Required(NAME)},
                    "emptyDir": {"medium": OneOf("Memory"), "sizeLimit": QUANTITY},
                    "persistentVolumeClaim": {"claimName": Required(NAME)},
                }
            ],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": Required([TERM])
                    },
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": Required(int), "preference": Required(TERM)}
                    ],
                }
            },
            "tolerations": [
                {
                    "key": str,
                    "operator": OneOf("Equal", "Exists"),
                    "value": str,
                    "effect": OneOf("NoSchedule", "PreferNoSchedule", "NoExecute"),
                }
            ],
        }
    ),
}
RAY_CLUSTER_SPEC = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "idleTimeoutSeconds": int,
        "upscalingMode": OneOf("Default", "Aggressive", "Conservative"),
        "resources": RESOURCES,
    },
    "headGroupSpec": Required({"rayStartParams": Required(MapOf(str)), "template": Required(POD)}),
    "workerGroupSpecs": [
        {
            "groupName": Required(NAME),
            "replicas": int,
            "minReplicas": Required(int),
            "maxReplicas": Required(int),
            "rayStartParams": Required(MapOf(str)),
            "template": Required(POD),
        }
    ],
}
KINDS: dict[tuple[str, str], Any] = {
    ("v1", "ConfigMap"): {"metadata": Required(META), "data": MapOf(str)},
    ("ray.io/v1", "RayCluster"): {"metadata": Required(META), "spec": Required(RAY_CLUSTER_SPEC)},
    ("ray.io/v1", "RayJob"): {
        "metadata": Required(META),
        "spec": Required(
            {
                "entrypoint": str,
                "submissionMode": OneOf("K8sJobMode", "HTTPMode", "InteractiveMode"),
                "submitterConfig": {"backoffLimit": int},
                "backoffLimit": int,
                "activeDeadlineSeconds": int,
                "shutdownAfterJobFinishes": bool,
                "ttlSecondsAfterFinished": int,
                "suspend": bool,
                "rayClusterSpec": RAY_CLUSTER_SPEC,
            }
        ),
    },
    ("kueue.x-k8s.io/v1beta1", "ResourceFlavor"): {
        "metadata": Required(META),
        "spec": {"nodeLabels": MapOf(str)},
    },
    ("kueue.x-k8s.io/v1beta1", "LocalQueue"): {
        "metadata": Required(META),
        "spec": Required({"clusterQueue": Required(NAME)}),
    },
    ("kueue.x-k8s.io/v1beta1", "ClusterQueue"): {
        "metadata": Required(META),
        "spec": Required(
            {
                "namespaceSelector": {},
                "queueingStrategy": OneOf("BestEffortFIFO", "StrictFIFO"),
                "preemption": {
                    "withinClusterQueue": OneOf("Never", "LowerPriority"),
                    "reclaimWithinCohort": OneOf("Never", "LowerPriority", "Any"),
                },
                "resourceGroups": [
                    {
                        "coveredResources": Required([str]),
                        "flavors": Required(
                            [
                                {
                                    "name": Required(NAME),
                                    "resources": Required(
                                        [
                                            {
                                                "name": Required(str),
                                                "nominalQuota": Required(QUANTITY),
                                            }
                                        ]
                                    ),
                                }
                            ]
                        ),
                    }
                ],
            }
        ),
    },
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "metadata": Required(META),
        "spec": Required(
            {
                "selector": Required({"matchLabels": MapOf(str)}),
                "podMetricsEndpoints": Required([{"port": Required(str), "interval": str}]),
            }
        ),
    },
}


def faults(document: Any) -> list[str]:
    """What an API server would say against an object; empty if nothing."""
    if not isinstance(document, dict):
        return ["not an object"]
    head = (str(document.get("apiVersion")), str(document.get("kind")))
    if head not in KINDS:
        return [f"unknown kind {head}"]
    rest = {k: v for k, v in document.items() if k not in ("apiVersion", "kind")}
    return list(_faults(rest, KINDS[head], head[1]))


def _faults(value: Any, rule: Any, where: str) -> Iterator[str]:
    if isinstance(rule, Required):
        rule = rule.of
    if isinstance(rule, dict):
        if not isinstance(value, dict):
            yield f"{where} must be an object, not {value!r}"
            return
        for key, child in value.items():
            if key not in rule:
                yield f"{where}.{key} is unknown"
            else:
                yield from _faults(child, rule[key], f"{where}.{key}")
        missing = [k for k, r in rule.items() if isinstance(r, Required) and k not in value]
        yield from (f"{where}.{key} is missing" for key in missing)
    elif isinstance(rule, list):
        if not isinstance(value, list):
            yield f"{where} must be a list, not {value!r}"
            return
        for place, child in enumerate(value):
            yield from _faults(child, rule[0], f"{where}[{place}]")
    elif isinstance(rule, MapOf):
        if not isinstance(value, dict):
            yield f"{where} must be a map, not {value!r}"
            return
        for key, child in value.items():
            yield from _faults(child, rule.of, f"{where}.{key}")
    elif isinstance(rule, OneOf):
        if value not in rule.values:
            yield f"{where} must be one of {rule.values}, not {value!r}"
    elif isinstance(rule, re.Pattern):
        if not isinstance(value, str) or not rule.match(value):
            yield f"{where} is {value!r}, which is not of the form {rule.pattern}"
    elif not isinstance(value, rule) or (rule is int and isinstance(value, bool)):
        yield f"{where} must be {rule.__name__}, not {value!r}"
