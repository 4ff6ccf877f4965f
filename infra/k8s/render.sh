#!/usr/bin/env bash
# Renders the manifests of this folder from run.yaml; tests/unit/test_infra.py compares them.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python}
common=(run.yaml --image textspot-ray:0.1.0 --worker-cpus 8 --secret textspot-s3)
render() { "$PYTHON" -m textspot_ray submit "${common[@]}" "${@:2}" >"$1"; }
render rayjob.yaml --k8s --name textspot --workers 1-8 --spot --deadline-s 172800
render rayjob-kueue.yaml --k8s --name textspot-queued --workers 4 --queue textspot
render raycluster.yaml --k8s-cluster --name textspot-cluster --workers 0-8 --spot
