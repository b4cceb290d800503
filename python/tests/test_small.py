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
    else:
        assert manager.add("a", DATA) == len(DATA)
    there = last or not isinstance(problem, Cut)
    assert manager.list_artifacts() == (["a"] if there else [])
    if there:
        assert manager.get("a") == DATA
    assert manager._files.ls("/mobula/incoming") == []


def unread_once(monkeypatch, made, step, problem):
    """The first answer to `step` arrives, and its reader gets the problem in its place."""
    read = namenode._read_frame
    left = [step]

    def fail(connection):
        data = read(connection)
        if left == made[-1:]:
            left.clear()
            raise problem
        return data

    monkeypatch.setattr(namenode, "_read_frame", fail)


@pytest.mark.parametrize("step", range(4))
def test_a_lost_answer_is_asked_for_again(manager, calls, made, monkeypatch, step):
    if step >= len(calls):
        pytest.skip("there is no such call")
    unread_once(monkeypatch, made, calls[step], ConnectionResetError("lost"))
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


SAFE_MODE = 2, 1  # SafeModeActionProto: enter, leave


def lost_once(monkeypatch, method, behind, after=lambda: None):
    """The first answer to `method` is lost; this happens before each repeat, and that after it."""
    exchange = NameNode._exchange
    sent = []

    def lose(self, asked, request, call, attempt=0):
        if asked != method:
            return exchange(self, asked, request, call, attempt)
        sent.append(attempt)
        if attempt == 0:
            exchange(self, asked, request, call, attempt)
            raise namenode._Lost("lost")
        behind(attempt)
        try:
            return exchange(self, asked, request, call, attempt)
        finally:
            after()

    monkeypatch.setattr(NameNode, "_exchange", lose)
    return sent


@pytest.mark.parametrize("step", range(4))
def test_a_repeat_in_safe_mode_is_answered_as_the_first_or_says_nothing_of_it(manager, calls, monkeypatch, step):
    if step >= len(calls) or calls[step] == "addBlock":
        pytest.skip("there is no such call, or it is no call that happens once")
    manager.add("warm", b"")
    other = NameNode(manager.deployment.host, manager.deployment.port)
    enter, leave = ([(1, action)] for action in SAFE_MODE)
    sent = lost_once(
        monkeypatch,
        calls[step],
        lambda attempt: other._call("setSafeMode", namenode.pb.encode(enter if attempt == 1 else leave)),
        lambda: other._call("setSafeMode", namenode.pb.encode(leave)),
    )
    assert manager.add("a", DATA) == len(DATA)
    # Who may close a file any number of times is refused in safe mode, as if it were the first time.
    plain = calls[step] == "complete" and calls is not QUICK
    again = [0, 1, 2] if plain else [0, 1]
    assert sent[: len(again) + 1] == again and manager.get("a") == DATA
    assert manager._files.ls("/mobula/incoming") == []


@pytest.mark.parametrize(
    "said",
    [
        mobulafs.RemoteError("org.apache.hadoop.ipc.RetriableException", "too much waits"),
        mobulafs.RemoteError("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "in safe mode"),
        mobulafs.RemoteError("org.apache.hadoop.ipc.StandbyException", "not the leader"),
        mobulafs.RemoteError("java.io.IOException", "the NameNode stops: a disk"),
    ],
    ids=["overloaded", "safe mode", "deposed", "stops"],
)
@pytest.mark.parametrize("first", [False, True], ids=["the repeat", "the first"])
def test_what_leaves_it_open_is_asked_again(manager, monkeypatch, said, first):
    if first and said.remote_class.endswith(("RetriableException", "SafeModeException")):
        pytest.skip("of the first sending it is a no")
    exchange = NameNode._exchange
    sent = []

    def answer(self, method, request, call, attempt=0):
        if method != "complete":
            return exchange(self, method, request, call, attempt)
        sent.append(call)
        answered = exchange(self, method, request, call, attempt)
        if attempt == 0:
            raise said if first else namenode._Lost("lost")
        if attempt == 1:
            raise said
        return answered

    monkeypatch.setattr(NameNode, "_exchange", answer)
    assert manager.add("a", DATA) == len(DATA)
    assert len(sent) == 3 and len(set(sent)) == 1 and manager.get("a") == DATA


@pytest.mark.parametrize("stored", [False, True])
def test_what_nobody_can_tell_is_said_so(manager, monkeypatch, stored):
    """Neither that it is not stored, nor that somebody else's artifact is there."""
    exchange = NameNode._exchange

    def broken(self, method, *rest):
        if method == "complete" and stored:
            exchange(self, method, *rest)
        if method in ("complete", "delete", "getFileInfo"):
            raise ValueError("broken")
        return exchange(self, method, *rest)

    monkeypatch.setattr(NameNode, "_exchange", broken)
    with pytest.raises(mobulafs.NameNodeUnreachable, match="nobody can tell whether"):
        manager.add("a", DATA)
    monkeypatch.undo()
    assert manager.list_artifacts() == (["a"] if stored else [])


@pytest.mark.parametrize("step", QUICK)
def test_a_namenode_that_is_silent_is_asked_once_more(manager, made, monkeypatch, step):
    """However long its silence was."""
    manager.add("warm", b"")
    made.clear()
    monkeypatch.setattr(namenode, "_REPEAT_LIMIT", -1.0)
    unread_once(monkeypatch, made, step, TimeoutError("timed out"))
    assert manager.add("a", DATA) == len(DATA)
    assert made.count(step) == 2 and manager.get("a") == DATA


@pytest.mark.parametrize("problem", [None, KeyboardInterrupt()], ids=["silent", "interrupted"])
@pytest.mark.parametrize("step", QUICK)
def test_who_got_no_answer_waits_for_no_other(manager, made, monkeypatch, step, problem):
    manager.add("warm", b"")
    made.clear()
    monkeypatch.setattr(namenode, "_REPEAT_LIMIT", -1.0)
    read = namenode._read_frame

    def silent(connection):
        data = read(connection)
        if made[-1] == step:
            raise problem or TimeoutError("timed out")
        return data

    monkeypatch.setattr(namenode, "_read_frame", silent)
    with pytest.raises(mobulafs.NameNodeUnreachable if problem is None else KeyboardInterrupt):
        manager.add("a", DATA)
    sendings = 2 if problem is None else 1
    assert made == QUICK[: QUICK.index(step)] + [step] * sendings


BLOCK = [(1, b""), (3, namenode.pb.encode([(1, namenode.pb.encode([(1, "127.0.0.1"), (4, 70_000)]))]))]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("create", {1: [namenode.pb.encode([(13, 1), (15, b"")])]}),
        ("create", {1: [namenode.pb.encode([(13, 1), (17, b"")])]}),
        ("addBlock", {}),
        ("addBlock", {1: [b""]}),
        ("addBlock", {1: [namenode.pb.encode([(3, b"")])]}),
        ("addBlock", {1: [namenode.pb.encode(BLOCK)]}),
        ("addBlock", {1: [namenode.pb.encode([*BLOCK[:1], (3, b""), (9, b"\x00")])]}),
        ("complete", {}),
    ],
    ids=["encrypted", "striped", "no block", "empty", "no id", "no port", "stripes", "not closed"],
)
def test_an_answer_that_cannot_be_is_gone_around(manager, made, monkeypatch, method, answer):
    monkeypatch.setattr(small, "_COMPLETE_PAUSE", 0.0)
    exchange = NameNode._exchange

    def odd(self, asked, *rest):
        answered = exchange(self, asked, *rest)
        if asked == "create" and method == "addBlock":
            answered.pop(namenode._FIRST_BLOCK)
        return answer if asked == method else answered

    monkeypatch.setattr(NameNode, "_exchange", odd)
    assert manager.add("a", DATA) == len(DATA)
    # Of what could not be completed it is found out that it is closed and has its name.
    assert made[0] == "create" and made[-1] == ("getFileInfo" if method == "complete" else "delete")
    assert manager.get("a") == DATA and manager._files.ls("/mobula/incoming") == []


#: The pipeline stands, and then both packets are acknowledged by two nodes.
TWO_OF_THREE = b"\x02\x08\x00" + b"\x06\x08\x00\x10\x00\x10\x00" + b"\x06\x08\x02\x10\x00\x10\x00"


@pytest.mark.parametrize(
    "answer", [b"", b"\x02\x08\x01", b"\x02\x08\x00\x04\x08\x00\x10\x01", b"\xff" * 20, TWO_OF_THREE]
)
def test_a_datanode_that_fails_is_gone_around(manager, calls, made, monkeypatch, answer):
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
    assert made[: len(calls) // 2 + 1] == [*calls[: len(calls) // 2], "delete"], "it was tried, and taken back"
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


FORKS = """
import ctypes, os, sys
from mobulafs import small
from mobulafs.namenode import NameNode
namenode = NameNode(sys.argv[1], int(sys.argv[2]))
for number in range(int(sys.argv[3])):
    namenode.delete("/none")
child = ctypes.PyDLL(None).fork()  # past Python's hooks
for number in range(6):
    name = f"{'parent' if child else 'child'}{number}"
    small.store(namenode, f"/incoming-{name}", f"/{name}", name.encode(), 3, 1 << 20, False)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


@pytest.mark.parametrize("calls_before", range(7, 12))
def test_a_fork_past_pythons_hooks_is_somebody_else(mobula_cluster, calls_before):
    """Its calls are not answered with those of its parent, nor with its own of another number."""
    where = mobula_cluster
    command = [sys.executable, "-c", FORKS, where.host, str(where.port), str(calls_before)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    files = mobulafs.MobulaFileSystem(where.host, where.port)
    names = sorted(f"{who}{number}" for who in ("child", "parent") for number in range(6))
    assert sorted(name.strip("/") for name in files.ls("/", detail=False)) == names
    for name in names:
        assert files.cat(f"/{name}") == name.encode()


def test_what_add_returned_from_is_replayed_after_the_death_of_all_servers(tmp_path):
    """The system lives on, and what it has in memory: syncs are shown by the DataNode's and the log's own tests."""
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
