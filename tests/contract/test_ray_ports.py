"""The Ray that a run starts is out of other machines' reach, and has no more than it needs."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any

import psutil


def test_no_daemon_is_started_that_nobody_asks(ray_cluster: Any) -> None:
    lines = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that has just ended
            lines.append(" ".join(process.cmdline()))
    assert any("raylet/raylet" in line for line in lines)
    unused = ("_private/monitor.py", "log_monitor.py", "dashboard/dashboard.py")
    assert not [line for line in lines if any(name in line for name in unused)]


def test_every_port_is_on_the_loopback_interface(ray_cluster: Any) -> None:
    ray = ray_cluster

    @ray.remote
    def pid() -> int:
        return psutil.Process().pid

    worker = ray.get(pid.remote())
    listening: dict[str, set[str]] = {}
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    where = listening.setdefault(process.name(), set())
                    where.add(connection.laddr.ip.removeprefix("::ffff:"))
        except psutil.Error:
            continue
    assert {"gcs_server", "raylet"} <= listening.keys()
    assert worker in {process.pid for process in me.children(recursive=True)}
    addresses = {address for found in listening.values() for address in found}
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses), listening
