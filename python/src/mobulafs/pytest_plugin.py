"""Fixtures for tests that want an HDFS: `mobula_cluster`, one cluster a session, empty for each test.

    def test_mine(mobula_cluster):
        mobula_cluster.filesystem().pipe("/a", b"1")

The first test waits for the start, some tenths of a second; each further one for the removal of what the one before
left, some milliseconds. `mobula_fs` is the same cluster's file system.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .filesystem import MobulaFileSystem
from .local import LocalCluster, local


@pytest.fixture(scope="session")
def mobula_session_cluster() -> Iterator[LocalCluster]:
    """One cluster of three DataNodes for all tests; its files stay from test to test."""
    with local(datanodes=3) as cluster:
        yield cluster


@pytest.fixture
def mobula_cluster(mobula_session_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The session's cluster, with nothing in it."""
    yield mobula_session_cluster
    files = mobula_session_cluster.filesystem()
    for path in files.ls("/", detail=False):
        files.rm(path, recursive=True)


@pytest.fixture
def mobula_fs(mobula_cluster: LocalCluster) -> MobulaFileSystem:
    """The cluster's files, empty."""
    return mobula_cluster.filesystem()
