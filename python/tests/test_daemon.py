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

from mobulafs.ray import actors
from mobulafs.ray.changes import Changes
from mobulafs.ray.daemon import Daemon
from mobulafs.ray.keeper import Keeper
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
    # Nobody's.
    c.note(None)
    c.release()
    c = take_slot(tmp_path, "a", {"a", "c", "d"})
    assert c.number == 3
    # Given up for good.
    c.retire()
    c.release()
    for node in ("a", "c", "e"):
        assert take_slot(tmp_path, node, {"a", "c", "d", "e"}).number > 3


def test_what_was_added_and_removed_is_kept(tmp_path):
    file = tmp_path / "namenode" / "spaces.json"
    changes = Changes(file)
    assert changes.of("a", "10.0.0.1", {"a", "b"}) == 0
    changes.add("a", "10.0.0.1", 1, {"a", "b"})
    changes.add("a", "10.0.0.1", 1, {"a", "b"})
    changes.add("b", "10.0.0.1", -1, {"a", "b"})
    again = Changes(file)
    assert [again.of(node, "10.0.0.1", {"a", "b"}) for node in "ab"] == [2, -1]
    # Another node, and one of its address is there.
    assert again.of("c", "10.0.0.1", {"a", "b", "c"}) == 0
    # After a full stop of Ray: each of the earlier ones has one heir.
    heirs = [again.of(node, "10.0.0.1", {"d", "e", "f"}) for node in "def"]
    assert heirs == [2, -1, 0] and again.of("g", "10.0.0.2", {"d", "e", "f", "g"}) == 0
    assert [Changes(file).of(node, "10.0.0.1", {"d", "e", "f"}) for node in "def"] == heirs
    again.add("d", "10.0.0.1", -2, {"d", "e", "f"})
    # One that is known is nobody's heir.
    assert [Changes(file).of(node, "10.0.0.1", {"d", "f"}) for node in "df"] == [0, 0]


def test_a_server_that_was_stopped_for_good_is_not_started_by_who_comes_late(tmp_path):
    daemon = Daemon(tmp_path / "run", claim_limit=60)
    keeper = Keeper(daemon, "the NameNode")
    try:
        keeper.want(namenode(tmp_path))
        keeper.start()
        assert daemon.alive()
        keeper.stop()
        keeper.want(namenode(tmp_path))
        keeper.start()
        keeper.tick()
        assert not daemon.alive() and keeper.starts == 1
    finally:
        daemon.stop()


class _Call:
    """A method of an actor's handle."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def remote(self, *args):
        self.calls.append((self.name, *args))


class _Handle:
    """An actor that only writes down what it is told."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return _Call(name, self.calls)


def test_a_look_around_that_was_under_way_begins_nothing_after_the_end(tmp_path, monkeypatch):
    handles = {}

    def launched(settings, node_id, address):
        return handles.setdefault(node_id, _Handle())

    class Context:
        def get_node_id(self):
            return "a"

    monkeypatch.setattr(actors, "launch_host", launched)
    monkeypatch.setattr(actors.ray, "get_runtime_context", Context)
    monkeypatch.setattr(actors.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(
        actors.ray, "nodes", lambda: [{"NodeID": "a", "NodeManagerAddress": "127.0.0.1", "Alive": True}]
    )
    monkeypatch.setattr(actors.ray, "wait", lambda asked, **_: (asked, []))
    monkeypatch.setattr(actors.ray, "get", lambda answer, **_: [])
    monkeypatch.setattr(actors.ray, "kill", lambda handle: None)
    monkeypatch.setattr(actors, "every_tick", lambda *_: None)
    manager = actors.Manager(actors.Settings(volumes=(str(tmp_path),), namenode_dir=str(tmp_path / "namenode")))
    try:
        assert [name for name, *_ in handles["a"].calls] == ["told", "follow"]
        monkeypatch.setattr(manager._keeper, "stop", lambda: None)  # the NameNode is the last to go: it still runs
        manager.shutdown()
        handles.clear()
        manager._settle()
        manager._looked_about = False
        manager._settle()
        with pytest.raises(mobulafs.ClusterFailed, match="being stopped"):
            manager.add_space()
        assert handles == {} and manager._hosts == {} and manager._places == {}
    finally:
        manager._keeper.daemon.kill()
    host = actors.Host(manager.settings)
    host.shutdown()
    assert host.follow("127.0.0.1:1", [0]) == [] and not list(tmp_path.glob("space-*"))
