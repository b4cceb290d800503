"""Small artifacts, which go to the servers by fewer calls: what may go wrong on the way, step by step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys

import pytest

import mobulafs

pytest.importorskip("ray")

from conftest import wait_until

from mobulafs import namenode, small
from mobulafs.namenode import NameNode
from mobulafs.ray import DataManager, Deployment

DATA = bytes(range(256)) * 4
#: The calls of an add to a NameNode that knows our wishes, and to one that does not.
QUICK = ["create", "complete"]
STEPS = ["create", "addBlock", "complete", "rename2"]


def manager_of(cluster) -> DataManager:
    return DataManager(cluster=Deployment("none", cluster.host, cluster.port, cluster.status_url))


@pytest.fixture
def manager(mobula_cluster) -> DataManager:
    return manager_of(mobula_cluster)


@pytest.fixture(params=[QUICK, STEPS], ids=["ours", "another"])
def calls(request, monkeypatch) -> list[str]:
    """The calls that an add makes, of a NameNode that knows wishes, and of one for which these are no fields."""
    if request.param is STEPS:
        for name in ("_FIRST_BLOCK", "_TARGET", "_OVERWRITE", "_RENAMED"):
            monkeypatch.setattr(namenode, name, 6001)
    return request.param


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The calls that were made."""
    made: list[str] = []
    exchange = NameNode._exchange

    def noted(self, method, *rest):
        made.append(method)
        return exchange(self, method, *rest)

    monkeypatch.setattr(NameNode, "_exchange", noted)
    return made


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 1000, small.LENGTH_MAX])
def test_what_is_small_takes_few_calls(manager, calls, made, length):
    data = os.urandom(length)
    assert manager.add("a", data) == length
    assert made == [call for call in calls if length or call != "addBlock"]
    assert manager.get("a") == data
    (status,) = manager.check_status()
    assert status.length == length and all(chunk.copies == 3 for chunk in status.chunks)
    assert manager._files.ls("/mobula/incoming") == []
    manager.update("a", b"new")
    assert manager.get("a") == b"new"
    with pytest.raises(mobulafs.ArtifactExists):
        manager.add("a", data)
    assert manager.get("a") == b"new" and manager._files.ls("/mobula/incoming") == []


def test_what_is_not_small_goes_the_usual_way(manager, made):
    manager.add("a", b"1" * (small.LENGTH_MAX + 1))
    little = DataManager(chunk_length=512, cluster=manager.deployment)
    little.add("b", b"1" * 513)
    assert made == [] and len(manager.check_status("b").chunks) == 2


def test_the_program_finds_the_checksums_right(manager, tmp_path, monkeypatch):
    from mobulafs.ray import artifacts

    monkeypatch.setattr(artifacts, "_BINARY_BYTES_MIN", 0)
    data = os.urandom(small.LENGTH_MAX)
    manager.add("a", data)
    manager.get("a", into=tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data


class Cut(Exception):
    """Something that nobody expects."""


@pytest.mark.parametrize("problem", [OSError("broken"), Cut()], ids=["expected", "not expected"])
@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "behind it"])
@pytest.mark.parametrize("step", range(4))
def test_of_what_ends_anywhere_there_is_all_or_nothing(manager, calls, monkeypatch, step, sent, problem):
    """And what one may go around is stored all the same."""
    if step >= len(calls):
        pytest.skip("there is no such call")
    exchange = NameNode._exchange
    left = [calls[step]]

    def cut(self, method, *rest):
        if left != [method]:
            return exchange(self, method, *rest)
        if sent:
            exchange(self, method, *rest)
        left.clear()
        raise problem

    monkeypatch.setattr(NameNode, "_exchange", cut)
    last = sent and step == len(calls) - 1
    if isinstance(problem, Cut):
        with pytest.raises(Cut):
            manager.add("a", DATA)
    elif last:
        # Stored, and told so by a failure that is none of the connection's, which no server does.
        with pytest.raises(mobulafs.ArtifactExists):
            manager.add("a", DATA)
    else:
        assert manager.add("a", DATA) == len(DATA)
    there = last or not isinstance(problem, Cut)
    assert manager.list_artifacts() == (["a"] if there else [])
    if there:
        assert manager.get("a") == DATA
    assert manager._files.ls("/mobula/incoming") == []


@pytest.mark.parametrize("step", range(4))
def test_a_lost_answer_is_asked_for_again(manager, calls, made, monkeypatch, step):
    if step >= len(calls):
        pytest.skip("there is no such call")
    read = namenode._read_frame
    left = [calls[step]]

    def lose(connection):
        data = read(connection)
        if left == made[-1:]:
            left.clear()
            raise ConnectionResetError("lost")
        return data

    monkeypatch.setattr(namenode, "_read_frame", lose)
    assert manager.add("a", DATA) == len(DATA)
    # The NameNode remembers that it made the file, and gives the block to who asks for it.
    after = ["create", *STEPS[1:2], *QUICK[1:]] if calls is QUICK and step == 0 else calls[step:]
    assert made == [*calls[: step + 1], *after]
    assert manager.get("a") == DATA and manager._files.ls("/mobula/incoming") == []


def test_an_answer_that_stays_lost_is_no_success(manager, monkeypatch):
    manager.add("warm", b"")
    monkeypatch.setattr(namenode, "_REPEAT_LIMIT", 0.5)
    read = namenode._read_frame
    exchange = NameNode._exchange

    def lose(connection):
        read(connection)
        raise ConnectionResetError("lost")

    def at_the_end(self, method, *rest):
        if method == "complete":
            monkeypatch.setattr(namenode, "_read_frame", lose)
        return exchange(self, method, *rest)

    monkeypatch.setattr(NameNode, "_exchange", at_the_end)
    with pytest.raises(mobulafs.NameNodeUnreachable, match="lost during complete"):
        manager.add("a", DATA)
    monkeypatch.undo()
    assert manager.get("a") == DATA


#: The pipeline stands, and then both packets are acknowledged by two nodes.
TWO_OF_THREE = b"\x02\x08\x00" + b"\x06\x08\x00\x10\x00\x10\x00" + b"\x06\x08\x02\x10\x00\x10\x00"


@pytest.mark.parametrize(
    "answer", [b"", b"\x02\x08\x01", b"\x02\x08\x00\x04\x08\x00\x10\x01", b"\xff" * 20, TWO_OF_THREE]
)
def test_a_datanode_that_fails_is_gone_around(manager, monkeypatch, answer):
    class Connection:
        def __init__(self, *_args, **_options):
            self.answer = answer

        def setsockopt(self, *_): ...
        def sendall(self, _): ...
        def close(self): ...
        def recv(self, _):
            told, self.answer = self.answer, b""
            return told

    class Sockets:
        IPPROTO_TCP, TCP_NODELAY = 6, 1
        create_connection = Connection

    monkeypatch.setattr(small, "socket", Sockets)
    monkeypatch.setattr(small, "_kept", small._Kept())
    manager.add("a", DATA)
    assert manager.get("a") == DATA and manager._files.ls("/mobula/incoming") == []


@pytest.fixture
def opened(monkeypatch) -> list[socket.socket]:
    """The connections to DataNodes that were made; none waits from a test before."""
    opened: list[socket.socket] = []

    def connect(*args, **options):
        opened.append(socket.create_connection(*args, **options))
        return opened[-1]

    class Sockets:
        IPPROTO_TCP, TCP_NODELAY = socket.IPPROTO_TCP, socket.TCP_NODELAY
        create_connection = staticmethod(connect)

    monkeypatch.setattr(small, "socket", Sockets)
    monkeypatch.setattr(small, "_kept", small._Kept())
    return opened


def test_connections_to_datanodes_are_used_again(manager, opened):
    for number in range(20):
        manager.add(str(number), DATA)
    assert len(opened) <= 3, "one to each DataNode"
    assert all(manager.get(str(number)) == DATA for number in range(20))


def test_a_kept_connection_that_was_closed_is_made_anew(manager, opened):
    for number in range(10):
        manager.add(str(number), DATA)
        opened[-1].shutdown(socket.SHUT_RDWR)
    assert len(opened) == 10
    assert all(manager.get(str(number)) == DATA for number in range(10))


def test_not_more_connections_are_kept_than_fit_and_not_for_long(manager, opened, monkeypatch):
    monkeypatch.setattr(small, "_KEPT_MAX", 2)
    manager.add_many(((str(number), DATA) for number in range(30)), in_flight=8)
    kept = [connection for waiting in small._kept._waiting.values() for _, connection in waiting]
    assert len(kept) == 2 and sum(connection.fileno() >= 0 for connection in opened) == 2
    monkeypatch.setattr(small, "_KEPT_LIMIT", 0.0)
    manager.add("last", DATA)
    assert all(connection.fileno() < 0 for connection in kept)


def _in_child(manager, pipe):
    manager.add("child", DATA)
    pipe.send(manager.get("child") == DATA)


def test_the_connections_of_a_parent_are_the_parents(manager, opened):
    manager.add("parent", DATA)
    context = multiprocessing.get_context("fork")
    ours, childs = context.Pipe()
    child = context.Process(target=_in_child, args=(manager, childs))
    child.start()
    try:
        assert ours.poll(40), "the child hangs"
        assert ours.recv()
    finally:
        child.kill()
        child.join()
    count = len(opened)
    with small._kept._lock:
        kept = [connection for waiting in small._kept._waiting.values() for _, connection in waiting]
    assert len(kept) == count == 1
    for number in range(6):
        manager.add(str(number), DATA)
    assert all(manager.get(str(number)) == DATA for number in range(6))


DRIVER = """
import os, signal, sys
from mobulafs import namenode, small
from mobulafs.namenode import NameNode
from mobulafs.ray import DataManager, Deployment
manager = DataManager(cluster=Deployment("none", sys.argv[1], int(sys.argv[2]), sys.argv[3]))
exchange = NameNode._exchange
def end(self, method, *rest):
    if sys.argv[4] == "before " + method:
        os.kill(os.getpid(), signal.SIGKILL)
    answer = exchange(self, method, *rest)
    if sys.argv[4] == "after " + method:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
NameNode._exchange = end
manager.add("a", bytes(range(256)) * 4)
"""


@pytest.mark.parametrize("moment", ["before create", "after create", "before complete", "after complete"])
def test_a_driver_that_is_killed_leaves_all_or_nothing_and_the_name_to_others(manager, moment):
    where = manager.deployment
    command = [sys.executable, "-c", DRIVER, where.host, str(where.port), where.status_url, moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    if moment == "after complete":
        assert manager.get("a") == DATA
    else:
        assert manager.list_artifacts() == []
        manager.add("a", b"mine")
        assert manager.get("a") == b"mine"


def test_what_add_returned_from_survives_the_death_of_all_servers(tmp_path):
    names = [str(number) for number in range(20)]
    with mobulafs.local(datanodes=3, dir=tmp_path) as cluster:
        manager = manager_of(cluster)
        for name in names:
            manager.add(name, name.encode() * 100)
        os.kill(cluster.pid, signal.SIGKILL)
        wait_until(lambda: not cluster.running, 10, "it is dead")
    with mobulafs.local(datanodes=3, dir=tmp_path) as cluster:
        manager = manager_of(cluster)
        assert manager.list_artifacts() == sorted(names)
        for name in names:
            assert manager.get(name) == name.encode() * 100
        manager.heal(60)


def test_a_space_takes_the_first_copy_of_what_is_small_too(manager, made):
    nodes = manager._files.namenode.nodes()
    one = DataManager(replication_factor=1, cluster=manager.deployment)
    made.clear()
    for number, node in enumerate(nodes):
        one._store(str(number), DATA, replace=False, first=node.address)
        assert one.check_status(str(number)).chunks[0].spaces == (node.address,)
    assert [call for call in made if call in STEPS] == ["create", "addBlock", "complete"] * len(nodes)
