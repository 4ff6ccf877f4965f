"""Starting Ray on this machine or joining a cluster, with every failure explained in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import psutil
import ray
from ray.job_config import JobConfig

from textspot_ray.config import EngineConfig
from textspot_ray.engine.sizing import available_cpus
from textspot_ray.errors import AbortedError, UsageError, one_line
from textspot_ray.import_path import package_root

_CONNECT_S: Final = 10.0
_VERSIONS: Final = re.compile(r"Ray: (\S+)\s+Python: (\S+)", re.DOTALL)
_TOKEN_FILE: Final = Path("~/.ray/auth_token")


class OwnPathJobConfig(JobConfig):  # type: ignore[misc]
    """A job whose workers do not import from the driver's working folder.

    Ray puts that folder, which may be the archive being read, first on the workers' path, unless
    the job has a working folder in its runtime environment. There is no public option for this; a
    real working folder would be packed, sent and unpacked on every node.
    """

    def __init__(self) -> None:
        root = package_root()
        installed = Path(root).name in ("site-packages", "dist-packages")
        super().__init__(_py_driver_sys_path=[] if installed else [root])

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def join(address: str, **options: Any) -> None:
    """`ray.init` at an address; every failure becomes one line.

    Args:
        address: As `ray.init` takes it.
        options: More of its options.

    Raises:
        UsageError: Nothing listens there, the token or a version is wrong, or Ray refuses.
    """
    check_reachable(address)
    if not address.startswith("ray://"):  # its server sets its own working folder
        options["job_config"] = OwnPathJobConfig()
    with capture_stderr() as captured:
        try:
            ray.init(address=address, **options)
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as exc:
            raise joining_fault(address, exc, captured()) from exc


def check_reachable(address: str) -> None:
    """Check in seconds whether anything listens; Ray itself tries for minutes.

    Raises:
        UsageError: Nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # ``auto``
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as exc:
        raise UsageError(
            f"no Ray cluster answers at {address}: check the address and that the head runs ({exc})"
        ) from exc


def joining_fault(address: str, exc: BaseException, captured: str = "") -> UsageError:
    """The error to raise when joining a cluster failed.

    Args:
        address: Of the cluster.
        exc: What Ray raised.
        captured: What Ray wrote to standard error meanwhile; it often says more.
    """
    text = f"{exc} {captured}"
    pairs = _VERSIONS.findall(str(exc))
    if "ersion mismatch" in text and len(pairs) >= 2:
        (ray_there, python_there), (ray_here, python_here) = pairs[:2]
        return UsageError(
            f"the cluster at {address} runs Ray {ray_there} on Python {python_there}, this machine "
            f"Ray {ray_here} on Python {python_here}: install the cluster's versions here, or "
            "submit to its Jobs API: textspot submit"
        )
    if "InvalidAuthToken" in text or "authentication token" in text.lower():
        return UsageError(f"the cluster at {address} wants a token: {_token_advice()}")
    if address == "auto" and isinstance(exc, ConnectionError):
        return UsageError(
            "no Ray cluster runs on this machine: start one (ray start --head), name an address, "
            "or leave --address out to have one started"
        )
    line = one_line(exc)
    if isinstance(exc, ConnectionError):
        return UsageError(
            f"the server at {address} is no Ray head, or refuses us: give the address of the "
            "head's GCS (port 6379 by default; 8265 is the dashboard's, for textspot submit), from "
            f"a machine on which Ray runs, or ray://HOST:10001 ({line})"
        )
    return UsageError(f"cannot join Ray at {address}: {line}")


def _token_advice() -> str:
    has_file = _TOKEN_FILE.expanduser().is_file() or "RAY_AUTH_TOKEN_PATH" in os.environ
    has_token = has_file or "RAY_AUTH_TOKEN" in os.environ
    uses_it = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if uses_it and has_token:
        return "the one in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token is not its own"
    if has_token:
        return "one is there, but Ray uses it only with RAY_AUTH_MODE=token: set that"
    return "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the cluster's"


@contextlib.contextmanager
def capture_stderr() -> Iterator[Callable[[], str]]:
    """Capture what Ray's native code writes to standard error, for a one-line message.

    Yields a function that returns the text so far. The text is passed on if nothing was raised.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:

        def captured() -> str:
            sys.stderr.flush()
            kept.seek(0)
            return kept.read().decode(errors="replace")

        own = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield captured
            words = captured().encode()
        finally:
            os.dup2(own, 2)
            os.close(own)
        if words:
            os.write(2, words)


_LOG = logging.getLogger(__name__)
_LOCAL: Final = "local"
_LOOPBACK: Final = "127.0.0.1"
_START_ATTEMPTS: Final = 3
_SHARED_MEMORY: Final = "/dev/shm"
_MIN_STORE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Node:
    """A live node: its id, address and CPUs."""

    id: str
    address: str
    cpus: float


class RayCluster:
    """The cluster a run works on; leaving the block stops Ray only if it was started here."""

    def __init__(self, engine: EngineConfig, run_id: str) -> None:
        self._engine = engine
        self._run_id = run_id
        self._ours = False
        self.is_shared = True  # other machines may belong to it, now or later

    def __enter__(self) -> RayCluster:
        if ray.is_initialized():
            return self
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = self._engine.address or os.environ.get("RAY_ADDRESS") or _LOCAL
        _let_ray_print(False)
        try:
            if address == _LOCAL:
                self._start()
                self.is_shared = False
            else:
                join(address, **self._options())
        except BaseException:
            _let_ray_print(True)
            raise
        self._ours = True
        return self

    def _start(self) -> None:
        for attempt in range(1, _START_ATTEMPTS + 1):
            before = frozenset(psutil.Process().children(recursive=True))
            try:
                with _on_loopback(), _without_unused():
                    ray.init(
                        address=_LOCAL,
                        **self._options(),
                        job_config=OwnPathJobConfig(),
                        num_cpus=max(1, int(available_cpus())),
                        num_gpus=0,
                        include_dashboard=False,
                        object_store_memory=object_store_bytes(self._engine),
                        _node_ip_address=_LOOPBACK,
                    )
                return
            except Exception as exc:
                # On a busy machine Ray does not wait long enough for its own daemons, and leaves
                # running what it has started.
                _end([p for p in psutil.Process().children(recursive=True) if p not in before])
                if attempt == _START_ATTEMPTS:
                    raise AbortedError(
                        f"cannot start Ray on this machine: {one_line(exc)}"
                    ) from exc
                _LOG.warning("Ray did not start (%s); trying again", one_line(exc))

    def _options(self) -> dict[str, Any]:
        return {
            "namespace": f"textspot-{self._run_id}",
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours:
            ray.shutdown()
            _let_ray_print(True)

    def nodes(self) -> list[Node]:
        """Live nodes that have CPUs and are not being drained."""
        leaving = self.leaving()
        return [
            Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]["CPU"])
            for node in ray.nodes()
            if node["Alive"]
            and node["Resources"].get("CPU", 0) > 0
            and node["NodeID"] not in leaving
        ]

    def leaving(self) -> frozenset[str]:
        """Ids of nodes that are being drained: preempted, or scaled down."""
        try:
            # Ray has no public function for this; its own libraries use this one.
            from ray._private.state import state

            return frozenset(state.get_draining_nodes())
        except Exception:  # an older Ray: such a node is lost rather than drained
            return frozenset()


def _let_ray_print(yes: bool) -> None:
    """Set whether Ray may print what its nodes report, such as the state of one that died.

    It prints that, twenty coloured lines, to standard output even without ``log_to_driver``; the
    run logs what it means. There is no public option for this.
    """
    from ray._private import worker

    worker._worker_logs_enabled = yes


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Make a Ray that is started in this block listen on the loopback interface only.

    Ray does so where a node's address is 127.0.0.1, but on Linux uses the machine's own instead,
    unless this constant says that the node will never be part of a cluster (the default on macOS
    and Windows, where RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is read once, at import).
    """
    from ray._private import ray_constants

    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    if before is None or psutil.MACOS or psutil.WINDOWS:  # a Ray without the constant
        yield
        return
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _without_unused() -> Iterator[None]:
    """Do not start daemons that are not used: autoscaler, log forwarding and dashboard.

    They cost 2 s of CPU time before the first word is read, and Ray waits for the last one even
    without a dashboard. There is no public option for this.
    """
    try:
        from ray._private.node import Node as Daemons
    except ImportError:  # another version of Ray: it starts all of them
        yield
        return

    def api_server(daemons: Any, **options: Any) -> None:
        daemons._webui_url = ""

    unused = {"start_monitor": lambda daemons: None, "start_log_monitor": lambda daemons: None}
    unused["start_api_server"] = api_server
    before = {name: getattr(Daemons, name) for name in unused if hasattr(Daemons, name)}
    try:
        for name in before:
            setattr(Daemons, name, unused[name])
        yield
    finally:
        for name, method in before.items():
            setattr(Daemons, name, method)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def object_store_bytes(engine: EngineConfig) -> int:
    """Size of the object store: what slots may have in flight, within what the machine has."""
    slots = engine.slots or 1
    wanted = int(slots * engine.max_bytes_in_flight * 1.25)
    limits = [int(psutil.virtual_memory().available * 0.3)]
    if os.path.isdir(_SHARED_MEMORY):  # noqa: PTH112
        limits.append(int(shutil.disk_usage(_SHARED_MEMORY).free * 0.9))
    return max(_MIN_STORE_BYTES, min(wanted, *limits))
