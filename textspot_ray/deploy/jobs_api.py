"""Submitting a run to a Ray cluster's Jobs API, and following it from here.

Only HTTP is used (port 8265), so this machine needs neither the cluster's Ray version nor its
network. The configuration is sent; credentials stay in the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from textspot_ray._version import __version__
from textspot_ray.config import RunConfig, dump_config, with_overrides
from textspot_ray.deploy.kubernetes import refuse_secrets
from textspot_ray.errors import AbortedError, ExitCode, MissingExtraError, UsageError, one_line
from textspot_ray.spotting.catalogue import known_names
from textspot_ray.storage.filesystem import LOCAL, split_uri

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8265"
CONFIG_FILE: Final = "run.yaml"
# A job's command is run by a shell, in which `python` need not be the interpreter that Ray and this
# package are installed for. The shell's parent is a process of Ray: its library shows which one is.
ENTRYPOINT: Final = (
    "lib=$(grep -om1 '/.*/ray/_raylet[^/]*so$' /proc/$PPID/maps 2>/dev/null); "
    'py="${lib%/lib*/python*/site-packages/ray/*}/bin/python"; [ -x "$py" ] || py=python; '
    f'exec "$py" -P -m textspot_ray run --config {CONFIG_FILE}'
)
_CONNECT_S: Final = 10.0
_REFUSED: Final = (401, 403)
_RECONNECTS: Final = 30  # in a row without an answer
_RECONNECT_S: Final = 2.0
_ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_NOT_INSTALLED: Final = re.compile(r"(?:(\S+): )?No module named '?textspot_ray")

Echo = Callable[[str], None]


class JobsClient(Protocol):
    """The part of ``ray.job_submission.JobSubmissionClient`` that is used."""

    def submit_job(self, *, entrypoint: str, **options: Any) -> str:
        """Send a job; its id."""

    def get_job_info(self, job_id: str) -> Any:
        """Status, message and exit code of the driver."""

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """The log from its beginning, until the job ends."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster whose Jobs API answers."""

    address: str
    ray_version: str
    client: JobsClient


def jobs_address(address: str | None) -> str:
    """The URL of the Jobs API.

    Args:
        address: As the user gave it; None = ``RAY_API_SERVER_ADDRESS``, or this machine.

    Raises:
        UsageError: It is an address of something else.

    >>> jobs_address("head.example")
    'http://head.example:8265'
    """
    given = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    url = given if "://" in given else f"http://{given}"
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    wrong = parts.scheme not in ("http", "https") or port in (-1, 6379, 10001)
    if wrong or not parts.hostname or given == "auto":
        raise UsageError(
            f"{given} is not the address of a Jobs API: give the dashboard's, http://HOST:8265"
        )
    if port is None and parts.scheme == "http":
        return f"http://{parts.hostname}:8265{parts.path.rstrip('/')}"
    return url.rstrip("/")


def connect(address: str | None) -> Cluster:
    """Connect to the Jobs API, within seconds, and find out its Ray version.

    Raises:
        MissingExtraError: The extra ``jobs`` is not installed.
        UsageError: Nothing answers there, it refuses, or it is not Ray.
    """
    url = jobs_address(address)
    headers: dict[str, str] = {}
    if "RAY_AUTH_TOKEN" in os.environ:  # given on purpose; a file's only where it is asked for
        headers = _bearer(os.environ["RAY_AUTH_TOKEN"])
    status, facts = _version(url, headers)
    if status in _REFUSED and not headers and (token := _stored_token()):
        headers = _bearer(token)
        status, facts = _version(url, headers)
    if status in _REFUSED:
        raise UsageError(
            f"{url} refuses access ({status}): give the cluster's token by RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH (ray get-auth-token on its head prints it)"
        )
    if not isinstance(facts, dict) or "ray_version" not in facts:
        raise UsageError(f"what answers at {url} is not a Ray dashboard (HTTP {status})")
    return Cluster(url, str(facts["ray_version"]), _client(url, headers))


def send(
    cluster: Cluster, config: RunConfig, job_id: str | None = None, *, quiet: bool = False
) -> str:
    """Submit a run; its job id. The driver runs on the head node and takes no slot's cores.

    Args:
        cluster: From `connect`.
        config: Sent as a file; its engine joins the cluster it is sent to.
        job_id: Instead of one that Ray makes up.
        quiet: Leave progress out of the job's log.

    Raises:
        UsageError: The configuration holds secrets, or the job id is taken.
    """
    refuse_secrets(config)
    inside = with_overrides(_absolute(config), ("engine.kind=ray", "engine.address=auto"))
    with tempfile.TemporaryDirectory(prefix="textspot-submit-") as folder:
        Path(folder, CONFIG_FILE).write_text(dump_config(inside), encoding="utf-8")
        try:
            return cluster.client.submit_job(
                entrypoint=ENTRYPOINT + (" --quiet" if quiet else ""),
                submission_id=job_id,
                runtime_env={
                    "working_dir": folder,
                    "env_vars": {"PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0"},
                },
                metadata={"textspot_ray": __version__, "out": config.output.uri},
            )
        except (RuntimeError, ValueError, ConnectionError) as exc:
            raise UsageError(f"{cluster.address} does not take the job: {one_line(exc)}") from exc


def follow(
    cluster: Cluster, job_id: str, echo: Echo, *, reconnect_s: float = _RECONNECT_S
) -> ExitCode:
    """Pass the job's log on until the job ends; return the exit code of the run.

    A broken connection is opened again, and the log resumes where it stopped.

    Args:
        cluster: From `connect`.
        job_id: From `send`.
        echo: Gets the log piece by piece.
        reconnect_s: Wait before another try.

    Raises:
        AbortedError: The job could not run, or the cluster is gone.
    """
    shown = 0
    tail = ""
    misses = 0

    async def pass_on() -> None:
        nonlocal shown, tail
        seen = 0
        async for piece in cluster.client.tail_job_logs(job_id):
            fresh = piece[max(0, shown - seen) :]
            seen += len(piece)
            if fresh:
                shown = seen
                tail = (tail + fresh)[-4000:]
                echo(fresh)

    while True:
        broken: Exception | None = None
        try:
            asyncio.run(pass_on())
        except BrokenPipeError:  # ours: nobody reads what we print
            raise
        except Exception as exc:  # each network library has its own
            broken = exc
        info = None
        try:
            info = cluster.client.get_job_info(job_id)
        except Exception as exc:
            broken = exc
        if info is not None and _status(info) in _ENDED:
            return _outcome(info, tail)
        misses = misses + 1 if info is None else 0
        if misses > _RECONNECTS:
            reason = f" ({one_line(broken)})" if broken is not None else ""
            raise AbortedError(
                f"lost sight of job {job_id} at {cluster.address}{reason}; it may still run: "
                "see textspot status on its output folder"
            )
        time.sleep(reconnect_s)


def local_paths(config: RunConfig) -> list[str]:
    """Sources, output and files of the model that are local paths, which nodes must have."""
    uris = [*config.source.uris, config.output.uri, config.model.words or ""]
    if config.model.name not in known_names():
        uris.append(config.model.name)
    return [uri for uri in uris if uri and split_uri(uri)[0] == LOCAL]


def _absolute(config: RunConfig) -> RunConfig:
    """Make relative paths absolute: the driver runs in another folder."""

    def whole(uri: str) -> str:
        is_path = uri and "://" not in uri and split_uri(uri)[0] == LOCAL
        return str(Path(uri).expanduser().absolute()) if is_path else uri

    source = replace(config.source, uris=tuple(whole(uri) for uri in config.source.uris))
    model = replace(config.model, words=whole(config.model.words or "") or None)
    if model.name not in known_names():
        model = replace(model, name=whole(model.name))
    output = replace(config.output, uri=whole(config.output.uri))
    return replace(config, source=source, model=model, output=output)


def _outcome(info: Any, tail: str) -> ExitCode:
    status = _status(info)
    if status == "SUCCEEDED":
        return ExitCode.OK
    if status == "STOPPED":
        return ExitCode.TERMINATED
    if (missing := _NOT_INSTALLED.search(tail)) is not None:
        python = missing[1] or "the python of the head node"
        raise AbortedError(
            f"{python} cannot import textspot_ray: install this version there, on every node, for "
            "the interpreter that runs Ray"
        )
    code = getattr(info, "driver_exit_code", None)
    if code == -signal.SIGTERM:  # before it had its handlers
        return ExitCode.TERMINATED
    with suppress(ValueError):
        return ExitCode(-1 if code is None else int(code))
    reason = " ".join(str(getattr(info, "message", "") or "no reason given").split())
    raise AbortedError(f"the job failed on the cluster: {reason[-400:]}")


def _status(info: Any) -> str:
    return str(getattr(info.status, "value", info.status))


def _version(url: str, headers: dict[str, str]) -> tuple[int, Any]:
    """HTTP status and answer of the dashboard's version page."""
    import requests

    try:
        answer = requests.get(f"{url}/api/version", timeout=_CONNECT_S, headers=headers)
    except requests.exceptions.RequestException as exc:
        raise UsageError(
            f"no Ray Jobs API answers at {url}: is the address right? Ray there needs "
            "'textspot-ray[jobs]', and --dashboard-host 0.0.0.0 or port 8265 forwarded"
        ) from exc
    try:
        return answer.status_code, answer.json() if answer.ok else {}
    except requests.exceptions.JSONDecodeError:
        return answer.status_code, {}


def _client(url: str, headers: dict[str, str]) -> JobsClient:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as exc:
        raise MissingExtraError("textspot submit", "jobs") from exc
    for module in ("dashboard_sdk", "job.sdk"):  # they set levels of their own; we say what counts
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
    try:
        client: JobsClient = JobSubmissionClient(url, headers=headers or None)
    except RuntimeError as exc:
        if "ray[default]" in str(exc):
            raise MissingExtraError("textspot submit", "jobs") from exc
        raise UsageError(f"{url} is no Jobs API of this kind: {one_line(exc)}") from exc
    except ConnectionError as exc:
        raise UsageError(f"no Ray Jobs API answers at {url}: {one_line(exc)}") from exc
    return client


def _stored_token() -> str:
    """The token that Ray itself would use on this machine; empty if there is none."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
