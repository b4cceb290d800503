"""Mobula from Python: a distributed file system on this machine or on a Ray cluster, in one call.

with mobulafs.local() as cluster:                 # a cluster in a child process
    cluster.filesystem().pipe("/a", b"1")

fs = mobulafs.MobulaFileSystem("10.0.0.1", 8020)  # fsspec, for pandas, pyarrow, polars, ...

import mobulafs.ray                               # the disks of a Ray cluster as one file system
mobulafs.ray.start()
mobulafs.filesystem()                             # for Ray Train and Ray Data
"""

from __future__ import annotations

from typing import Any

from . import errors
from .errors import *  # noqa: F403 - the names are those of errors.__all__, told there once
from .filesystem import MobulaFileSystem
from .local import LocalCluster, local
from .logs import configure as configure_logging

__version__ = "0.1.0"

__all__ = [*errors.__all__, "LocalCluster", "MobulaFileSystem", "configure_logging", "filesystem", "local"]


def filesystem(name: str = "default") -> Any:
    """The Mobula of this Ray cluster as a `pyarrow.fs.FileSystem`, for Ray Train and Ray Data; see `mobulafs.ray`."""
    from .ray import filesystem as of_ray

    return of_ray(name)
