"""Mobula on a Ray cluster.

import mobulafs.ray

mobulafs.ray.start()                     # the disks of the cluster become one file system
fs = mobulafs.ray.filesystem()           # for Ray Train and Ray Data
data = mobulafs.ray.DataManager()        # or artifacts by name
data.add("weights", array)
mobulafs.ray.status()
"""

from __future__ import annotations

from .artifacts import ArtifactStatus, Chunk, DataManager, DataSpace
from .deploy import Deployment, Status, connect, filesystem, start, status, stop
from .healer import AutoHealer, Event, Health

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
    "start",
    "status",
    "stop",
]
