"""Mobula on a Ray cluster.

import mobulafs.ray

mobulafs.ray.start()                     # the disks of the cluster become one file system
fs = mobulafs.ray.filesystem()           # for Ray Train and Ray Data
mobulafs.ray.read(ray.data.read_parquet, "/data")  # each file where its blocks are
data = mobulafs.ray.DataManager()        # or artifacts by name
data.add("weights", array)
mobulafs.ray.status()
"""

from __future__ import annotations

from .artifacts import ArtifactStatus, Chunk, DataManager, DataSpace
from .deploy import Deployment, Status, connect, filesystem, start, status, stop
from .healer import AutoHealer, Event, Health
from .locality import read

__all__ = [
    "ArtifactStatus",
    "AutoHealer",
    "Chunk",
    "DataManager",
    "DataSpace",
    "Deployment",
    "Event",
    "Health",
    "Status",
    "connect",
    "filesystem",
    "read",
    "start",
    "status",
    "stop",
]
