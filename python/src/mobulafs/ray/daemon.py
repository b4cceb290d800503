"""A native server under a supervisor that may die and come back. Knows no Ray.

The server ends by itself when nobody has renewed its claim (a file that is touched) for the limit. It writes where it
listens and who it is into its ready file, so that the next supervisor takes it up again instead of starting a second
one; the lock of its folder keeps two from ever running on the same disk.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ..binary import find_binary
from ..errors import ClusterFailed
from ..logs import logger

__all__ = ["Daemon", "Ready"]

_LOG = logger(__name__)
_READY_LIMIT = 60.0
_LOOK_PAUSE = 0.02
_EXEC_LIMIT = 5.0
_ERROR_CHARS_SHOWN = 2000


@dataclass(frozen=True)
class Ready:
    """What a server said once it served."""

    words: tuple[str, ...]
    pid: int


class Daemon:
    """One server: `mobula ARGS`, with what belongs to running it in `folder`."""

    def __init__(self, folder: Path, claim_limit: float, log_level: str = "info") -> None:
        """Starts nothing yet."""
        self.folder = folder
        self.claim_file = folder / "claim"
        self.ready_file = folder / "ready"
        self.log_file = folder / "log"
        self._error_file = folder / "error"
        self._command_file = folder / "command"
        self._claim_limit = claim_limit
        self._log_level = log_level
        self.ready: Ready | None = None

    def ensure(self, args: list[str]) -> bool:
        """Sees to it that a server with these arguments runs; True if it was started now.

        Raises ClusterFailed with the server's own message.
        """
        self.renew()
        if self._take_up(args):
            return False
        self._start(args)
        return True

    def renew(self) -> None:
        """Renews the claim."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.claim_file.touch()

    def alive(self) -> bool:
        """Whether the server runs."""
        return self.ready is not None and self._is_ours(self.ready.pid)

    def kill(self) -> int | None:
        """SIGKILL, and waits until it is gone; the process that was killed."""
        return self._end(signal.SIGKILL, 10.0)

    def stop(self, limit: float = 10.0) -> int | None:
        """Ends it in order; after `limit` seconds it is killed."""
        return self._end(signal.SIGTERM, limit)

    def _take_up(self, args: list[str]) -> bool:
        ready = self._read_ready()
        if ready is None or not self._is_ours(ready.pid):
            return False
        if self.ready != ready:
            _LOG.info("took up process %d again (%s)", ready.pid, " ".join(ready.words))
        self.ready = ready
        try:
            same = bool(json.loads(self._command_file.read_text()) == args)
        except (OSError, ValueError):
            same = False
        if not same:
            self.stop()
        return same

    def _start(self, args: list[str]) -> None:
        self.ready = None
        self.ready_file.unlink(missing_ok=True)
        self._command_file.write_text(json.dumps(args))
        command = [str(find_binary()), "--log", self._log_level, "--log-file", str(self.log_file), *args]
        command += ["--claim", str(self.claim_file), "--claim-limit", f"{int(self._claim_limit * 1000)}ms"]
        command += ["--ready-file", str(self.ready_file)]
        pid = self._launch(command)
        deadline = time.monotonic() + _READY_LIMIT
        while True:
            ready = self._read_ready()
            if ready is not None and ready.pid == pid:
                self.ready = ready
                _LOG.info("started process %d (%s)", ready.pid, " ".join(ready.words))
                return
            if not self._is_ours(pid):
                raise ClusterFailed(self._said() or f"mobula {args[0]} ended before it was ready; see {self.log_file}")
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise ClusterFailed(f"mobula {args[0]} was not ready within {_READY_LIMIT:g} s; see {self.log_file}")
            self.renew()
            time.sleep(_LOOK_PAUSE)

    def _launch(self, command: list[str]) -> int:
        """Starts a process that is nobody's child: Ray kills the children of a worker that ends."""
        with self._error_file.open("wb") as error:
            shell = subprocess.run(
                ["/bin/sh", "-c", '"$@" </dev/null >/dev/null & echo $!', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=error,
                start_new_session=True,
                cwd=self.folder,
                check=True,
            )
        pid = int(shell.stdout)
        # Until it is the program and no longer the shell's copy, its command line is another.
        deadline = time.monotonic() + _EXEC_LIMIT
        while not self._is_ours(pid) and Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(_LOOK_PAUSE / 4)
        return pid

    def _said(self) -> str:
        text = self._error_file.read_text(errors="replace")[-_ERROR_CHARS_SHOWN:]
        return text.strip().removeprefix("mobula: ")

    def _read_ready(self) -> Ready | None:
        try:
            first, second = self.ready_file.read_text().splitlines()
            return Ready(tuple(first.split()[1:]), int(second.split()[1]))
        except (OSError, ValueError, IndexError):
            return None

    def _is_ours(self, pid: int) -> bool:
        # A process id is used again one day: the command line tells whose it is.
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return os.fsencode(self.ready_file) in words and state not in "ZX"

    def _end(self, how: signal.Signals, limit: float) -> int | None:
        ready = self.ready or self._read_ready()
        if ready is None or not self._is_ours(ready.pid):
            return None
        deadline = time.monotonic() + limit
        os.kill(ready.pid, how)
        while self._is_ours(ready.pid):
            if time.monotonic() > deadline:
                os.kill(ready.pid, signal.SIGKILL)
                deadline += limit
            time.sleep(_LOOK_PAUSE)
        self.ready = None
        return ready.pid
