"""`read`: Ray Data's readers, with each file read on a node that holds its blocks.

Ray Data takes a hint for a whole data set, not for a file. So the files are sorted by the node that has most of each
one's bytes, each node's files are a data set with a hint of their own, and `read` is the union of these. It is a hint:
a node that is gone has its files read elsewhere.
"""

from __future__ import annotations

import inspect
import posixpath
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..filesystem import MobulaFileSystem
from ..namenode import FileEntry, NameNode
from .deploy import Deployment, ask, connect

__all__ = ["read"]

#: The label by which Ray knows a node.
_NODE_LABEL = "ray.io/node-id"


def read(
    reader: Callable[..., Any],
    paths: str | Iterable[str],
    *,
    cluster: str | Deployment = "default",
    filesystem: Any = None,
    **options: Any,
) -> Any:
    """Reads files with one of Ray Data's readers where their blocks are.

        mobulafs.ray.read(ray.data.read_parquet, "/data/squares", columns=["id"])

    `paths`: files and directories, as the readers take them; names that begin with `.` or `_` are passed over. Further
    `options` are the reader's, and hold for each node's files by themselves. Rows come node by node, not in the order
    of the files' names. `filesystem`: another one for the same files. Raises FileNotFoundError.
    """
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    deployment = connect(cluster) if isinstance(cluster, str) else cluster
    files = deployment.fsspec()
    filesystem = filesystem or PyFileSystem(FSSpecHandler(files))
    given = [MobulaFileSystem._strip_protocol(path) for path in ([paths] if isinstance(paths, str) else paths)]
    found = [file for path in given for file in _files(files.namenode, path)]
    shares = _share_out(found, _nodes(deployment))
    with _unwarned():
        parts = [
            reader(names, filesystem=filesystem, **_hint(reader, node), **options)
            for node, names in sorted(shares.items())
        ]
    if not parts:
        # The reader has its own words for it.
        return reader(given, filesystem=filesystem, **options)
    return parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]


def _files(namenode: NameNode, path: str) -> Iterator[tuple[str, FileEntry]]:
    """The files at or below a path, with their blocks."""
    for entry in namenode.listing(path):
        if not entry.name:  # the path is a file
            yield path, entry
        elif not entry.name.startswith((".", "_")):
            inner = posixpath.join(path, entry.name)
            if entry.is_dir:
                yield from _files(namenode, inner)
            else:
                yield inner, entry


def _nodes(deployment: Deployment) -> dict[str, str]:
    """The Ray node of each DataNode, where tasks can run at all."""
    working = {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0}
    spaces = ask(lambda: deployment.manager().spaces.remote())
    return {space["uuid"]: space["node_id"] for space in spaces if space.get("uuid") and space["node_id"] in working}


def _share_out(files: list[tuple[str, FileEntry]], nodes: dict[str, str]) -> dict[str, list[str]]:
    """The files of each node: of those that hold most of a file, the one that has least to read so far."""
    shares: dict[str, list[str]] = {}
    load = dict.fromkeys(nodes.values(), 0)
    if not load:
        return shares
    for path, entry in sorted(files, key=lambda file: (-file[1].length, file[0])):
        held = dict.fromkeys(load, 0)
        for block in entry.blocks:
            for node in {nodes[uuid] for uuid in block.uuids if uuid in nodes}:
                held[node] += block.length
        most = max(held.values())
        chosen = min((node for node in held if held[node] == most), key=lambda node: (load[node], node))
        load[chosen] += entry.length
        shares.setdefault(chosen, []).append(path)
    for names in shares.values():
        names.sort()
    return shares


def _hint(reader: Callable[..., Any], node: str) -> dict[str, Any]:
    if "ray_remote_args" in inspect.signature(reader).parameters:
        # Waits for a node that is busy, and goes elsewhere from one that is gone.
        return {"ray_remote_args": {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}}
    # What Ray is to have instead from 2.64 on: goes elsewhere from a node that is busy, too.
    return {"label_selector": {_NODE_LABEL: node}, "fallback_strategy": [{"label_selector": {}}]}


@contextmanager
def _unwarned() -> Iterator[None]:
    """Ray warns of `ray_remote_args`, which its users cannot change here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        yield
