"""Run on a cluster: through the Jobs API of a Ray cluster, or on Kubernetes as a KubeRay RayJob.

    textspot submit run.yaml --address http://head:8265
    textspot submit s3://bucket/scans --out s3://bucket/tables --k8s > rayjob.yaml

CONFIG.yaml or SOURCE... and --out are those of textspot run, and so are the options.
With --k8s the manifest is printed; --apply hands it to kubectl.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from textspot_ray.commands.options import add_run_options, run_config
from textspot_ray.errors import AbortedError, ExitCode, UsageError

if TYPE_CHECKING:
    from textspot_ray.config import RunConfig
    from textspot_ray.deploy.kubernetes import KubeOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_run_options(parser, out_required=True)
    jobs = parser.add_argument_group(
        "Jobs API", "--address is the dashboard's: http://HOST:8265 (or RAY_API_SERVER_ADDRESS)"
    )
    watch = jobs.add_mutually_exclusive_group()
    watch.add_argument("--follow", action="store_true", help="show the log until it ends (default)")
    watch.add_argument("--detach", action="store_true", help="print the job's id and return")
    jobs.add_argument(
        "--quiet", "-q", action="store_true", help="no progress, and nothing but warnings here"
    )
    jobs.add_argument("--job-id", metavar="ID", help="instead of one that Ray makes up")
    kube = parser.add_argument_group("Kubernetes")
    which = kube.add_mutually_exclusive_group()
    which.add_argument("--k8s", action="store_true", help="print a RayJob: a cluster for this run")
    which.add_argument(
        "--k8s-cluster", action="store_true", help="print a RayCluster that stays, for the Jobs API"
    )
    kube.add_argument("--apply", action="store_true", help="give it to kubectl instead")
    kube.add_argument("--name", metavar="NAME", help="default: textspot-DATE-TIME")
    kube.add_argument("--namespace", metavar="NS", help="default: kubectl's")
    kube.add_argument("--image", metavar="IMAGE", help="with textspot-ray in it, see infra/docker")
    kube.add_argument("--workers", metavar="MIN-MAX|N", help="worker pods (default 1-4)")
    kube.add_argument("--worker-cpus", type=int, metavar="N", help="of each (default 8)")
    kube.add_argument("--spot", action="store_true", help="workers prefer spot nodes")
    kube.add_argument(
        "--secret", action="append", metavar="NAME", help="Secret whose keys become environment"
    )
    kube.add_argument("--service-account", metavar="NAME", help="for workload identity")
    kube.add_argument("--volume", action="append", metavar="CLAIM:/PATH", help="mount a claim")
    kube.add_argument("--queue", metavar="NAME", help="Kueue's LocalQueue")
    kube.add_argument("--deadline-s", type=int, metavar="S", help="default 604800, a week")
    kube.add_argument("--ttl-s", type=int, metavar="S", help="until a finished one goes (600)")
    kube.add_argument("--retries", type=int, metavar="N", help="new clusters (default 4)")


def main(args: argparse.Namespace) -> int:
    """Send the run, or print its manifest."""
    _accept_config_file(args)
    address, args.address = args.address, None  # of the Jobs API here, not of the engine
    config = run_config(args, environment=False)  # the cluster has one of its own
    if args.apply and not (args.k8s or args.k8s_cluster):
        raise UsageError("--apply goes with --k8s or --k8s-cluster")
    if args.k8s or args.k8s_cluster:
        if args.quiet:
            raise UsageError(
                "--quiet is of the Jobs API; for a manifest --set engine.progress_s=3600"
            )
        return _kubernetes(args, config)
    return _jobs_api(args, config, address)


def _accept_config_file(args: argparse.Namespace) -> None:
    """Take a single YAML file given as a source for the configuration."""
    if args.config is None and len(args.source) == 1:
        only = args.source[0]
        if only.endswith((".yaml", ".yml")) and "://" not in only:
            args.config, args.source = only, []


def _jobs_api(args: argparse.Namespace, config: RunConfig, address: str | None) -> int:
    from textspot_ray.deploy.jobs_api import connect, follow, local_paths, send

    say = (lambda text: None) if args.quiet else _say
    for path in local_paths(config):
        print(f"textspot: {path} must be there on every node of the cluster", file=sys.stderr)
    cluster = connect(address)
    job_id = send(cluster, config, args.job_id, quiet=args.quiet)
    say(f"job      {job_id} at {cluster.address}, Ray {cluster.ray_version}")
    say(f"status   textspot status {config.output.uri}")
    say(f"stop     ray job stop --address {cluster.address} {job_id}")
    if args.detach:
        print(job_id)
        return ExitCode.OK
    try:
        return follow(cluster, job_id, _echo)
    except KeyboardInterrupt:
        print(f"textspot: no longer followed; job {job_id} goes on", file=sys.stderr)
        return ExitCode.INTERRUPTED


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _echo(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _kubernetes(args: argparse.Namespace, config: RunConfig) -> int:
    from textspot_ray.deploy.kubernetes import dump, render_cluster, render_job

    render = render_cluster if args.k8s_cluster else render_job
    text = dump(render(config, kube_options(args)))
    if not args.apply:
        print(text, end="")
        return ExitCode.OK
    command = ["kubectl", "apply", "-f", "-"]
    try:
        status = subprocess.run(command, input=text.encode(), check=False).returncode
    except FileNotFoundError as exc:
        raise UsageError("--apply needs kubectl on the PATH; or pipe --k8s into it") from exc
    if status:
        raise AbortedError("kubectl did not take the manifest; its message is above")
    return ExitCode.OK


def kube_options(args: argparse.Namespace) -> KubeOptions:
    """The options of the pods that the command line sets; the others have the defaults.

    Raises:
        UsageError: A value is not of its form.
    """
    from textspot_ray.deploy.kubernetes import KubeOptions, PodVolume

    given: dict[str, Any] = {
        "name": args.name or time.strftime("textspot-%Y%m%d-%H%M%S", time.gmtime()),
        "namespace": args.namespace,
        "image": args.image,
        "worker_cpus": args.worker_cpus,
        "secrets": tuple(args.secret or ()),
        "service_account": args.service_account,
        "volumes": tuple(PodVolume.parse(text) for text in args.volume or ()),
        "spot": args.spot,
        "queue": args.queue,
        "deadline_s": args.deadline_s,
        "ttl_s": args.ttl_s,
        "retries": args.retries,
    }
    if args.workers:
        low, dash, high = args.workers.partition("-")
        high = high if dash else low
        if not low.isdecimal() or not high.isdecimal():
            raise UsageError(f"--workers takes N or MIN-MAX, not {args.workers!r}")
        given["min_workers"], given["max_workers"] = int(low), int(high)
    return KubeOptions(**{key: value for key, value in given.items() if value is not None})
