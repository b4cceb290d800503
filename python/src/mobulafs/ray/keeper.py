"""Keeps one server running as long as it is wanted: claims it, looks at it, starts it again. Knows no Ray."""

from __future__ import annotations

import threading
import time
from typing import Any

from ..errors import ClusterFailed
from ..logs import logger
from .daemon import Daemon

__all__ = ["TICK", "Keeper"]

_LOG = logger(__name__)

#: Claims are renewed, servers and nodes looked at, this often (seconds).
TICK = 1.0
#: A server that does not start is tried again after so long, twice that, and so on up to the maximum.
_RETRY_FIRST, _RETRY_MAX = 0.5, 30.0


class Keeper:
    """Keeps one server running as long as it is wanted."""

    def __init__(self, daemon: Daemon, what: str) -> None:
        """Starts nothing yet; `what` is for the log."""
        self.daemon = daemon
        self.problem: str | None = None
        self.starts = 0
        self._what = what
        self._args: list[str] | None = None
        self._ended = False
        self._lock = threading.RLock()
        self._retry_at = 0.0
        self._pause = _RETRY_FIRST

    def want(self, args: list[str] | None) -> None:
        """With these arguments; None: not at all. After `stop` nothing is wanted any more."""
        with self._lock:
            if self._ended:
                return
            self._args, self._retry_at, self._pause = args, 0.0, _RETRY_FIRST

    def tick(self) -> None:
        """Renews the claim, and starts what should run and does not."""
        with self._lock:
            if self._args is None:
                return
            self.daemon.renew()
            if self.daemon.alive() or time.monotonic() < self._retry_at:
                return
            self.start()

    def start(self) -> None:
        """Starts it now, or takes it up again."""
        with self._lock:
            if self._args is None:
                return
            try:
                self.starts += self.daemon.ensure(self._args)
                self.problem, self._pause = None, _RETRY_FIRST
            except (ClusterFailed, OSError) as problem:
                self.problem = str(problem)
                self._retry_at = time.monotonic() + self._pause
                self._pause = min(self._pause * 2, _RETRY_MAX)
                _LOG.error("%s does not start: %s", self._what, problem)

    def kill(self, again: bool) -> int | None:
        """SIGKILL; without `again` it stays down."""
        with self._lock:
            if not again:
                self._args = None
            return self.daemon.kill()

    def stop(self) -> None:
        """Ends it in order, for good."""
        with self._lock:
            self._args, self._ended = None, True
            self.daemon.stop()

    def told(self) -> dict[str, Any]:
        """For `status`."""
        ready = self.daemon.ready
        running = self.daemon.alive()
        return {
            "running": running,
            "pid": ready.pid if ready and running else None,
            "folder": str(self.daemon.folder),
            "log": str(self.daemon.log_file),
            "starts": self.starts,
            "problem": self.problem,
        }


def every_tick(look: Any, ending: threading.Event, what: str) -> None:
    """Calls `look` once a tick, in a thread, until `ending` is set."""

    def loop() -> None:
        while not ending.wait(TICK):
            try:
                look()
            except Exception:  # noqa: BLE001 - whatever it was, the claim must be renewed in a second
                _LOG.exception("%s: a look around failed", what)

    threading.Thread(target=loop, daemon=True, name=f"mobula {what}").start()
