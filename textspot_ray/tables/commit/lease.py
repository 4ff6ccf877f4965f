"""A heartbeat lease, for stores that cannot put exclusively: one driver at a time.

Where `Store.probe_exclusive` says no, two drivers could both win a shard. They are kept apart by a
file that its holder touches every few seconds. That is weaker than an exclusive put (a driver that
sleeps past the limit and wakes up may still write once), which is why it is only the fall-back.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from types import TracebackType

from textspot_ray.errors import StorageError
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import STATE

LEASE_FILE = f"{STATE}/lease.json"


class Lease:
    """Keeps other drivers off an output folder while it is held; a context manager.

    Args:
        store: The output folder.
        run_id: Named in the message to the driver that is refused.
        beat_s: Seconds between heartbeats; a lease that misses three is up for taking.
        settle_s: How long a new lease waits before it looks whether another driver took it too.
    """

    def __init__(
        self, store: Store, run_id: str, beat_s: float = 10.0, settle_s: float = 2.0
    ) -> None:
        self._store = store
        self._beat_s = beat_s
        self._settle_s = settle_s
        self._holder = secrets.token_hex(8)
        self._facts = {"run_id": run_id, "host": platform.node(), "pid": os.getpid()}
        self._beats = 0
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="textspot-lease", daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            StorageError: Another driver holds it; the message names run, host and process.
        """
        self._wait_for_silence()
        self._beat()
        time.sleep(self._settle_s)
        holder = self._read()
        if holder is None or holder["holder"] != self._holder:
            raise StorageError(self._refusal(holder or {}))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(StorageError):
                self._store.delete(LEASE_FILE)

    def check(self) -> None:
        """Raise if the lease was lost; to be called before anything is committed.

        Raises:
            StorageError: Another driver took the lease, or heartbeats could not be written.
        """
        if self._lost:
            raise StorageError(
                f"{self._store.uri}: lost the lease on the output folder (another driver took it, "
                "or storage did not answer for too long); run again"
            )

    def _wait_for_silence(self) -> None:
        first = self._read()
        limit = time.monotonic() + 3 * self._beat_s
        while first is not None and time.monotonic() < limit:
            # Only a beat that changes proves a living holder: clocks of machines differ.
            time.sleep(min(self._beat_s / 2, 1.0))
            now = self._read()
            if now is None:
                return
            if now != first:
                raise StorageError(self._refusal(now))

    def _refusal(self, holder: dict[str, object]) -> str:
        who = ", ".join(f"{k} {holder[k]}" for k in ("run_id", "host", "pid") if k in holder)
        return (
            f"another driver works on {self._store.uri} ({who or 'unknown'}), and this store "
            "cannot put exclusively, which several at once would need: wait for it or stop it"
        )

    def _keep(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self._beat_s):
            try:
                holder = self._read()
                if holder is None or holder["holder"] != self._holder:
                    self._lost = True
                    return
                self._beat()
                last = time.monotonic()
            except StorageError:
                if time.monotonic() - last > 3 * self._beat_s:
                    self._lost = True
                    return

    def _beat(self) -> None:
        self._beats += 1
        data = {"holder": self._holder, "beat": self._beats, "at": time.time(), **self._facts}
        self._store.put(LEASE_FILE, json.dumps(data).encode())

    def _read(self) -> dict[str, object] | None:
        try:
            found = json.loads(self._store.read(LEASE_FILE))
        except FileNotFoundError:
            return None
        except ValueError:
            return {"holder": "damaged"}
        return found if isinstance(found, dict) else {"holder": "damaged"}
