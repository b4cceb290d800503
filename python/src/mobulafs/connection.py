"""Clients of `hdfs-native`, one for each cluster and process, and its exceptions in Python's terms.

What is worked around here, seen in 0.14.7:
- with no NameNode it retries for three minutes: a first use is probed for 2 s, and later retries end after 30 s;
- a client that was made before a fork waits for ever in the child: each process makes its own;
- its pool of connections to DataNodes is one for all clients and is forked too: a child times out after 10 s, not 60 s;
- a client that is dropped while the interpreter ends can hang it: clients are never dropped (one a cluster);
- a stray HADOOP_CONF_DIR changes what it does: where host and port are given, it is shown an empty folder;
- what the server says comes as text in a RuntimeError, and a panic is no Exception at all.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hdfs_native

from .errors import BlocksUnreachable, NameNodeUnreachable
from .namenode import path_exception, probe, remote_exception

__all__ = ["client", "translated"]

#: 20 tries with pauses that double from 200 ms up to 1.5 s: about 30 s.
_RETRIES = {
    "dfs.client.failover.max.attempts": "20",
    "dfs.client.failover.sleep.base.millis": "200",
    "dfs.client.failover.sleep.max.millis": "1500",
}

#: The first read of a child waits so long for a connection that its parent had open, which nobody serves there.
_FORKED = {"dfs.client.socket-timeout": "10000"}

_forked = False
_clients: dict[tuple[int, str, tuple[tuple[str, str], ...]], Any] = {}
_lock = threading.Lock()
_NODE = re.compile(r'ip_addr: \\*"([^"\\]+)\\*".*?xfer_port: (\d+)')
_RPC_ERROR = re.compile(r'RPCError\("(?P<name>[^"]*)", "(?P<text>.*)"\)', re.DOTALL)


def _after_fork() -> None:
    # A fork may have copied the lock while another thread held it.
    global _lock, _forked
    _lock = threading.Lock()
    _forked = True


os.register_at_fork(after_in_child=_after_fork)


def client(host: str | None, port: int | None, options: dict[str, str]) -> Any:
    """The client of a cluster. Raises NameNodeUnreachable if nobody has answered there within 2 s of a first use."""
    url = "hdfs://" + (host or "") + (f":{port}" if host and port else "")
    key = (os.getpid(), url, tuple(sorted(options.items())))
    found = _clients.get(key)
    if found is not None:
        return found
    if host and port:
        probe(host, port)
    with _lock:
        found = _clients.get(key)
        if found is None:
            # Our own folder holds no Hadoop configuration.
            folder = str(Path(__file__).parent) if host and port else None
            found = hdfs_native.Client(url, {**_RETRIES, **(_FORKED if _forked else {}), **options}, folder)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(found.inner))
            _clients[key] = found
        return found


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turns what `hdfs-native` raises into what a user of Python's files expects."""
    try:
        yield
    except (FileNotFoundError, FileExistsError) as problem:
        said = str(problem)
        if "not a directory" in said:
            raise FileExistsError(f"{path}: {said}") from None
        raise path_exception(type(problem), said if path in said else f"{path}: {said}") from None
    except RuntimeError as problem:
        raise _from_text(str(problem), path) from problem
    except OSError as problem:
        if "onnection refused" in str(problem) or "onnection reset" in str(problem):
            raise NameNodeUnreachable(f"no NameNode answers: {problem}") from problem
        raise
    except Exception:
        raise
    except BaseException as panic:
        if type(panic).__name__ != "PanicException":
            raise
        raise OSError(f"{path}: the client failed inside: {panic}") from panic


def _from_text(said: str, path: str) -> Exception:
    match = _RPC_ERROR.search(said)
    if match:
        text = match["text"].replace("\\'", "'").replace('\\"', '"').replace("\\n", "\n")
        return remote_exception(match["name"], text)
    if "no datanodes" in said.lower() or "InternalError" in said or "DataTransfer" in said or "BlockNot" in said:
        nodes = ", ".join(f"{ip}:{port}" for ip, port in _NODE.findall(said))
        what = "no DataNode takes a block" if "for write" in said else "no replica of a block can be read now"
        return BlocksUnreachable(f"{path}: {what}: {nodes or said}")
    return OSError(f"{path}: {said}")
