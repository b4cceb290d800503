"""A whole cluster on this machine, in a child process that cannot outlive this one: for tests and for a look around."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import threading
import urllib.request
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .binary import find_binary
from .errors import BadArgument, ClusterFailed
from .filesystem import MobulaFileSystem
from .logs import logger

__all__ = ["LocalCluster", "local"]

_LOG = logger(__name__)
#: A cluster that is not ready after this many seconds is reported with the end of its log.
_READY_LIMIT = 60.0
#: One that does not end in order within this many is killed.
_STOP_LIMIT = 10.0
_LOG_LINES_KEPT = 30

#: The clusters' processes. Each ends with its standard input, which this process alone may hold open.
_lifelines: weakref.WeakSet[subprocess.Popen[str]] = weakref.WeakSet()


def _after_fork() -> None:
    for process in list(_lifelines):
        if process.stdin:
            process.stdin.close()
    _lifelines.clear()


os.register_at_fork(after_in_child=_after_fork)


class LocalCluster:
    """A running cluster. Use it as a context manager, or call `stop`."""

    def __init__(self, process: subprocess.Popen[str], uri: str, status_url: str | None, log: _Log) -> None:
        """Made by `local`."""
        self._process = process
        self._owner = os.getpid()
        self._log = log
        #: `hdfs://host:port`.
        self.uri = uri
        #: The status page, `http://host:port`.
        self.status_url = status_url
        host, _, port = uri.removeprefix("hdfs://").partition(":")
        #: The NameNode's address.
        self.host, self.port = host, int(port)

    @property
    def pid(self) -> int:
        """The child's process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def filesystem(self, **options: Any) -> MobulaFileSystem:
        """The cluster's files for everything that takes fsspec."""
        return MobulaFileSystem(self.host, self.port, **options)

    def health(self) -> dict[str, Any]:
        """What the status page says: nodes, blocks, and whether all is healed."""
        if self.status_url is None:
            raise BadArgument("this cluster has no status page")
        with urllib.request.urlopen(f"{self.status_url}/health", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def log(self) -> str:
        """The end of what it logged."""
        return self._log.text()

    def stop(self) -> None:
        """Ends it in order, and waits. Without a folder of its own nothing stays.

        In the child of a fork nothing happens: the cluster is the parent's.
        """
        if self._owner != os.getpid():
            return
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        # A child that was forked past Python's hooks may still hold the other end of its lifeline open.
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.join()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> LocalCluster:
        """The cluster itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self.stop()

    def __repr__(self) -> str:
        """Where it is."""
        return f"<mobulafs.LocalCluster {self.uri}{'' if self.running else ' (ended)'}>"


def local(
    datanodes: int = 3,
    *,
    dir: str | os.PathLike[str] | None = None,
    port: int = 0,
    replication: int | None = None,
    block_size: int | str | None = None,
    min_block_size: int | str = 512,
    log_level: str = "warn",
) -> LocalCluster:
    """Starts a NameNode and `datanodes` DataNodes on loopback and waits until they serve.

    `dir` keeps everything for next time; without it nothing stays. `port` 0 picks a free one. Sizes are in bytes or
    as "128m". The cluster ends with this process, even if that is killed. Raises ClusterFailed with the program's own
    message: a port that is taken, a folder in use, a disk that cannot be written.
    """
    if datanodes < 1:
        raise BadArgument(f"{datanodes} DataNodes: there must be one at least")
    command = [str(find_binary()), "--log", log_level, "local", "--until-stdin-closes", "--http-port", "0"]
    command += ["--datanodes", str(datanodes), "--port", str(port), "--min-block-size", str(min_block_size)]
    for flag, value in (("--dir", dir), ("--replication", replication), ("--block-size", block_size)):
        if value is not None:
            command += [flag, str(value)]
    # A process group of its own: Ctrl-C at our terminal is not for it, we end it in order.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _lifelines.add(process)
    assert process.stdout and process.stderr
    log = _Log(process.stderr)
    alarm = threading.Timer(_READY_LIMIT, process.kill)
    alarm.start()
    status_url = None
    try:
        for line in process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "status":
                status_url = rest
            if word == "ready":
                return LocalCluster(process, rest, status_url, log)
    finally:
        alarm.cancel()
    code = process.wait()
    log.join()
    process.stdout.close()
    if process.stdin:
        process.stdin.close()
    raise ClusterFailed(log.text().removeprefix("mobula: ") or f"mobula local ended with exit code {code}")


class _Log:
    """Takes what a process logs, so that its pipe never fills, and keeps the end of it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: collections.deque[str] = collections.deque(maxlen=_LOG_LINES_KEPT)
        self._thread = threading.Thread(target=self._drain, daemon=True, name="mobulafs log")
        self._thread.start()

    def _drain(self) -> None:
        for line in self._stream:
            self._lines.append(line)
            _LOG.debug("%s", line.rstrip())

    def text(self) -> str:
        return "".join(self._lines).strip()

    def join(self) -> None:
        self._thread.join(_STOP_LIMIT)
        self._stream.close()


def kept_folder(path: str | os.PathLike[str]) -> Path:
    """A folder given by a user, whole and made."""
    folder = Path(path).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
