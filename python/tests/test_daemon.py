"""Daemons under supervisors that die, and the slots that they take: no Ray needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import mobulafs

pytest.importorskip("ray")

from conftest import alive, wait_until

from mobulafs.ray.daemon import Daemon
from mobulafs.ray.slots import take_slot


def namenode(tmp_path) -> list[str]:
    return ["namenode", "--dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]


def test_a_daemon_is_taken_up_again_not_doubled(tmp_path):
    first = Daemon(tmp_path / "run", claim_limit=60)
    second = Daemon(tmp_path / "run", claim_limit=60)
    try:
        assert first.ensure(namenode(tmp_path)) is True
        assert first.ensure(namenode(tmp_path)) is False
        # Another supervisor, as after the first one's death.
        assert second.ensure(namenode(tmp_path)) is False
        assert second.ready == first.ready and second.alive()
        assert second.log_file.exists()
    finally:
        pid = second.stop()
    assert pid and not alive(pid) and not second.alive()
    assert second.stop() is None


def test_a_daemon_with_other_arguments_is_started_anew(tmp_path):
    daemon = Daemon(tmp_path / "run", claim_limit=60)
    try:
        daemon.ensure(namenode(tmp_path))
        before = daemon.ready
        assert daemon.ensure([*namenode(tmp_path), "--replication", "2"]) is True
        assert daemon.ready and before and daemon.ready.pid != before.pid
        assert not alive(before.pid)
    finally:
        daemon.stop()


def test_a_killed_daemon_is_noticed_and_started_again(tmp_path):
    daemon = Daemon(tmp_path / "run", claim_limit=60)
    try:
        daemon.ensure(namenode(tmp_path))
        assert daemon.ready
        os.kill(daemon.ready.pid, signal.SIGKILL)
        wait_until(lambda: not daemon.alive(), 10, "the death was noticed")
        assert daemon.ensure(namenode(tmp_path)) is True
    finally:
        daemon.kill()


def test_its_own_words_when_it_does_not_start(tmp_path):
    daemon = Daemon(tmp_path / "run", claim_limit=60)
    with pytest.raises(mobulafs.ClusterFailed, match="nowhere"):
        daemon.ensure(["namenode", "--dir", str(tmp_path / "data"), "--listen", "nowhere:1"])
    assert not daemon.alive()


def test_it_ends_when_its_supervisor_was_killed_and_nobody_came(tmp_path):
    program = f"""
import time
from pathlib import Path
from mobulafs.ray.daemon import Daemon
daemon = Daemon(Path({str(tmp_path / "run")!r}), claim_limit=3)
daemon.ensure({namenode(tmp_path)!r})
print(daemon.ready.pid, flush=True)
while True:
    daemon.renew()
    time.sleep(0.2)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout
    pid = int(supervisor.stdout.readline())
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    assert alive(pid)
    wait_until(lambda: not alive(pid), 30, "the daemon ended")


def test_a_process_that_only_has_the_same_number_is_not_taken_up(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ready").write_text(f"ready hdfs://127.0.0.1:1\npid {os.getpid()}\n")
    daemon = Daemon(tmp_path / "run", claim_limit=60)
    assert daemon.stop() is None  # or this test would end itself
    try:
        assert daemon.ensure(namenode(tmp_path)) is True
    finally:
        daemon.stop()


def test_slots_go_to_their_node_then_to_whoever_comes(tmp_path):
    a, b = (take_slot(tmp_path, node, {"a", "b"}) for node in "ab")
    assert (a.number, b.number) == (0, 1)
    # A second space of the same node.
    assert take_slot(tmp_path, "a", {"a", "b"}).number == 2
    b.release()
    # b is only being restarted: c does not take its place, b does.
    c = take_slot(tmp_path, "c", {"a", "b", "c"})
    assert c.number == 3
    again = take_slot(tmp_path, "b", {"a", "b", "c"})
    assert again.number == 1
    # b's node is gone: its folder, with its data, is free.
    again.release()
    assert take_slot(tmp_path, "d", {"a", "c", "d"}).number == 1
    # Given up for good.
    c.note(None)
    c.release()
    assert take_slot(tmp_path, "a", {"a", "c", "d"}).number == 3
