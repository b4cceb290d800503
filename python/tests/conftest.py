"""What all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20
#: A node of the Ray clusters of these tests: all on loopback.
RAY_NODE = {"num_cpus": 2, "object_store_memory": 100 * MIB, "include_dashboard": False, "node_ip_address": "127.0.0.2"}
RAY_ATTEMPTS = 3
#: A busy machine's agents need long to start; Ray gives up after 15 s otherwise.
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
#: Tests talk to nobody outside.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
#: Ray Data starts 32 processes for each read of parquet files, to look at their ends: minutes, on two cores.
os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")

pytest_plugins = ["pytester"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With MOBULA_ALL_TESTS set, a test that was left out because something is not installed is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("MOBULA_ALL_TESTS") or reporter is None:
        return
    left_out = [report for report in reporter.stats.get("skipped", []) if "could not import" in str(report.longrepr)]
    if left_out and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"{len(left_out)} tests were left out: {left_out[0].longrepr}")


def wait_until(condition: Callable[[], Any], limit: float, what: str) -> Any:
    """Asks until the answer is true; fails after `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {limit:g} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture
def noise() -> Callable[[int, int], bytes]:
    """Bytes that differ everywhere, the same for the same seed."""
    import random

    return lambda length, seed=0: random.Random(seed).randbytes(length)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A real Ray of two nodes, for all tests: its starts are slow."""
    import ray
    from ray.cluster_utils import Cluster

    # Not Ray's own folder: what a killed run left there (ray_current_cluster) leads others astray.
    folder = tempfile.mkdtemp(prefix="ray-")
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster()
    for _ in range(2):
        add_node(cluster)
    ray.init(address=cluster.address, _node_ip_address="127.0.0.2", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def add_node(cluster: Any, **more: Any) -> Any:
    """One more node. Ray gives a raylet 30 s to start, which is too short on a machine with much else to do."""
    # A driver takes a node of its own address for its own, and ends with it: that must be the head, which stays.
    address = {"node_ip_address": "127.0.0.3"} if cluster.head_node else {}
    for attempt in range(RAY_ATTEMPTS):
        try:
            return cluster.add_node(**{**RAY_NODE, **address, **more})
        except Exception:
            if attempt + 1 == RAY_ATTEMPTS:
                raise
    raise AssertionError("the loop returns or raises")


def launch(folder: Path, **more: Any) -> Any:
    """Mobula on it, with everything in one folder and limits that suit a test."""
    import mobulafs.ray

    options = {"volumes": folder / "spaces", "namenode_dir": folder / "namenode", "claim_limit": 40, "dead_after": 4}
    return mobulafs.ray.start(**{**options, "spaces_per_node": 2, **more})


@pytest.fixture(scope="session")
def deployment(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Mobula on it, two spaces a node."""
    import mobulafs.ray

    deployment = launch(tmp_path_factory.mktemp("mobula"))
    yield deployment
    mobulafs.ray.stop()
