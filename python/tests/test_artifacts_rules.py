"""What DataManager takes and refuses: against a cluster of `local`, without Ray's help."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeout
from pathlib import Path

import pytest

import mobulafs

pytest.importorskip("ray")
numpy = pytest.importorskip("numpy")

from conftest import wait_until

from mobulafs.ray import AutoHealer, DataManager, Deployment, artifacts, healer
from mobulafs.ray.actors import free_ports
from mobulafs.ray.changes import Changes
from mobulafs.ray.daemon import Daemon

MIB = 1 << 20


@pytest.fixture
def manager(mobula_cluster) -> DataManager:
    assert mobula_cluster.status_url
    where = Deployment("none", mobula_cluster.host, mobula_cluster.port, mobula_cluster.status_url)
    return DataManager(chunk_length=MIB, replication_factor=3, cluster=where)


def test_all_kinds_of_data_come_back(manager, noise, tmp_path):
    data = noise(3 * MIB + 5, 1)
    (tmp_path / "in").write_bytes(data)
    stored = {
        "bytes": data,
        "bytearray": bytearray(data),
        "view": memoryview(data)[::1],
        "path": tmp_path / "in",
        "file": io.BytesIO(data),
        "iterator": iter([data[:10], data[10:MIB], data[MIB:]]),
    }
    for name, value in stored.items():
        assert manager.add(name, value) == len(data)
        assert manager.get(name) == data, name
        assert manager.get(name, into=tmp_path / "out") == len(data)
        assert (tmp_path / "out").read_bytes() == data
    assert manager.list_artifacts() == sorted(stored)
    chunks = [manager.get_chunk("bytes", number) for number in range(4)]
    assert [len(chunk) for chunk in chunks] == [MIB, MIB, MIB, 5] and b"".join(chunks) == data
    with pytest.raises(mobulafs.BadArgument, match="4 chunks"):
        manager.get_chunk("bytes", 4)
    assert manager.add("empty", b"") == 0 and manager.get("empty") == b""


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(1000, dtype="float32").reshape(10, 100),
        numpy.arange(1000).reshape(10, 100).T,
        numpy.zeros((0, 3)),
        numpy.array(7),
        numpy.array(["a", "bcd"]),
        numpy.array([1, 2], dtype="datetime64[s]"),
        numpy.arange(20)[::2],
        numpy.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
        numpy.arange(4).astype(">i2"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_are_npy_files(manager, array):
    manager.add("a", array)
    back = manager.get("a")
    assert back.dtype == array.dtype and back.shape == array.shape and (back == array).all()
    raw = manager.get("a", as_bytes=True)
    assert (numpy.load(io.BytesIO(raw)) == array).all()


def test_bytes_that_only_begin_like_an_array_are_bytes(manager):
    manager.add("a", b"\x93NUMPY and no more")
    assert manager.get("a") == b"\x93NUMPY and no more"


def test_objects_and_text_are_refused(manager):
    with pytest.raises(mobulafs.BadArgument, match="pickle"):
        manager.add("a", numpy.array([object()]))
    with pytest.raises(mobulafs.BadArgument, match="encode"):
        manager.add("a", "text")
    with pytest.raises(mobulafs.BadArgument, match="int"):
        manager.add("a", 7)
    with pytest.raises(mobulafs.BadArgument, match="bytes"):
        manager.add("a", iter([b"good", "bad"]))
    with pytest.raises(FileNotFoundError):
        manager.add("a", Path("/no/such/file"))
    assert manager.list_artifacts() == []
    # Nothing is left of what failed half way.
    assert manager._files.find("/mobula") == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/", "a:b", "a\nb", "a\0", "x" * 256, "ä" * 128, "\ud800", None]
)
def test_names_that_are_none(manager, name):
    with pytest.raises(mobulafs.BadArgument):
        manager.add(name, b"1")
    with pytest.raises(mobulafs.BadArgument):
        manager.get(name)


@pytest.mark.parametrize(
    "name", ["a", "x" * 255, "ä" * 127, "日本語", "with space", "...", "a#b?c%41", "*", "-rf", ".hidden"]
)
def test_names_that_are(manager, name, tmp_path):
    manager.add(name, name.encode())
    assert manager.get(name) == name.encode()
    assert manager.list_artifacts() == [name]
    assert manager.check_status(name).name == name
    assert manager.get(name, into=tmp_path / "out") == len(name.encode())
    manager.remove(name)
    assert manager.list_artifacts() == []


@pytest.mark.parametrize("name", ["w[1]", "w\\1", "*", "w?", "{w1,v}"])
def test_a_file_gets_the_named_artifact_whatever_the_name_means_to_a_shell(manager, monkeypatch, name, tmp_path):
    monkeypatch.setattr(artifacts, "_BINARY_BYTES_MIN", 0)  # all go through the program
    manager.add("w1", b"other")
    manager.add(name, b"this one")
    assert manager.get(name, into=tmp_path / "out") == 8
    assert (tmp_path / "out").read_bytes() == b"this one"
    assert manager.get("w1", into=tmp_path / "[out]") == 5
    assert (tmp_path / "[out]").read_bytes() == b"other"


def test_what_is_there_twice_and_what_is_not(manager):
    manager.add("a", b"1")
    with pytest.raises(mobulafs.ArtifactExists, match="update"):
        manager.add("a", b"2")
    assert manager.get("a") == b"1"
    manager.update("a", b"3")
    assert manager.get("a") == b"3"
    manager.update("new", b"4")
    for wrong in (manager.get, manager.remove, manager.check_status, lambda name: manager.get_chunk(name, 0)):
        with pytest.raises(mobulafs.ArtifactNotFound, match="'none'"):
            wrong("none")
    assert issubclass(mobulafs.ArtifactNotFound, FileNotFoundError)


def test_of_many_adds_of_one_name_one_wins(manager):
    outcomes: list[object] = []

    def one(number: int) -> None:
        try:
            manager.add("same", str(number).encode() * 1000)
            outcomes.append(number)
        except mobulafs.ArtifactExists as problem:
            outcomes.append(problem)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert len(outcomes) == 8 and len(winners) == 1
    assert manager.get("same") == str(winners[0]).encode() * 1000
    assert manager._files.ls("/mobula/incoming") == []


def test_a_reader_sees_the_old_or_the_new(manager):
    versions = [bytes([number]) * (2 * MIB + number) for number in range(6)]
    manager.add("a", versions[0])
    ended = threading.Event()
    seen: list[bytes] = []
    wrong: list[BaseException | int] = []

    def read() -> None:
        while not ended.is_set():
            try:
                data = manager.get("a")
            except BaseException as problem:  # noqa: BLE001 - the test shows it
                wrong.append(problem)
                return
            if data not in versions:
                wrong.append(len(data))
            seen.append(data[:1])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in versions[1:]:
        manager.update("a", version)
    ended.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong
    assert seen and manager.get("a") == versions[-1]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_chunk_is_one_versions_although_it_is_replaced_meanwhile(manager, monkeypatch, moment):
    """Around the open, once: where the chunks of one version end is in the midst of the other's."""
    old, new = b"1" * (2 * MIB), b"2" * (2 * MIB)
    manager.add("a", old)
    halves = DataManager(chunk_length=MIB // 2, replication_factor=3, cluster=manager.deployment)
    opened = manager._files.open
    updates = iter([lambda: halves.update("a", new)])

    def open_(path, mode):
        if moment == "before":
            next(updates, lambda: None)()
        file = opened(path, mode)
        next(updates, lambda: None)()
        return file

    monkeypatch.setattr(manager._files, "open", open_)
    assert manager.get_chunk("a", 1) == new[: MIB // 2]


@pytest.mark.parametrize("length", [0, -512, 1, 511, 513, 1 << 40])
def test_chunk_lengths_that_are_none(manager, length):
    with pytest.raises(mobulafs.BadArgument, match="chunk_length"):
        DataManager(chunk_length=length, cluster=manager.deployment)


@pytest.mark.parametrize("factor", [0, -1, 513])
def test_replication_factors_that_are_none(manager, factor):
    with pytest.raises(mobulafs.BadArgument, match="replication_factor"):
        DataManager(replication_factor=factor, cluster=manager.deployment)


def test_more_copies_than_spaces_are_stored_with_what_there_is(manager):
    many = DataManager(chunk_length=MIB, replication_factor=5, cluster=manager.deployment)
    many.add("a", b"1" * (2 * MIB))
    status = many.check_status("a")
    assert status.copies == 3 and not status.healthy and status.state == "too few copies"
    assert many.get("a") == b"1" * (2 * MIB)
    wait_until(lambda: many.healer.status().limited_by_spaces >= 2, 20, "the AutoHealer counted them")


def test_tables_and_pictures(manager, tmp_path):
    pytest.importorskip("matplotlib")
    from mobulafs.ray.picture import draw

    manager.add("<b>", b"1" * (3 * MIB))
    artifacts = manager.check_status()
    assert "3.0 MiB" in repr(artifacts) and "healthy" in repr(artifacts)
    assert "&lt;b&gt;" in artifacts._repr_html_() and "<b>" in artifacts._repr_html_()
    places = {address: number for number, address in enumerate(artifacts[0].chunks[0].spaces)}
    draw([("before", artifacts, places), ("after", artifacts, places)], tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


BOB = """
import sys
from pathlib import Path
from mobulafs.ray import DataManager, Deployment, artifacts
manager = DataManager(cluster=Deployment("none", sys.argv[1], int(sys.argv[2]), sys.argv[3]))
artifacts._BINARY_BYTES_MIN = 0
# One space has no room: that is not why.
manager._full = lambda: artifacts._Full.SOME
for data in (b"1", Path(sys.executable), iter([b"1"])):
    try:
        manager.add("a", data)
    except Exception as problem:
        print(type(problem).__name__, problem)
"""


def test_who_may_not_write_is_told_that_and_not_of_full_spaces(manager):
    where = manager.deployment
    command = [sys.executable, "-c", BOB, where.host, str(where.port), where.status_url]
    done = subprocess.run(command, env={**os.environ, "HADOOP_USER_NAME": "bob"}, stdout=subprocess.PIPE, text=True)
    told = done.stdout.splitlines()
    assert len(told) == 3 and all(line.startswith("PermissionError ") and "user=bob" in line for line in told), told


READER = """
import sys
from mobulafs.ray import DataManager, Deployment
manager = DataManager(cluster=Deployment("none", sys.argv[1], int(sys.argv[2]), sys.argv[3]))
(status,) = manager.check_status()
print(status.state, [chunk.copies for chunk in status.chunks])
print(manager._files.namenode.stats().capacity > 0)
try:
    manager._files.namenode.nodes()
except Exception as problem:
    print(type(problem).__name__, problem)
"""


def test_who_is_no_superuser_sees_the_status_and_not_the_nodes(manager):
    """As in HDFS: dfsadmin -report shows everybody the sums, and the DataNodes to a superuser."""
    manager.add("a", b"1")
    where = manager.deployment
    command = [sys.executable, "-c", READER, where.host, str(where.port), where.status_url]
    done = subprocess.run(command, env={**os.environ, "HADOOP_USER_NAME": "bob"}, stdout=subprocess.PIPE, text=True)
    told = done.stdout.splitlines()
    assert told[:2] == ["healthy [3]", "True"], told
    assert told[2].startswith("PermissionError ") and "Superuser privilege is required" in told[2], told


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (mobulafs.ClusterFailed("put: all nodes failed"), True),
        (mobulafs.RemoteError("java.io.IOException", "no more good datanodes"), True),
        (mobulafs.BlocksUnreachable("no DataNode takes a block"), True),
        (OSError(errno.ENOSPC, "no space left"), True),
        (OSError("broken pipe (os error 32)"), True),
        (PermissionError("user=bob"), False),
        (OSError(errno.EIO, "the local file cannot be read"), False),
        (TimeoutError("timed out"), False),
        (mobulafs.NameNodeUnreachable("no NameNode answers"), False),
        (mobulafs.BadArgument("a piece is int"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_a_servers_failure_asks_for_room(problem, expected):
    assert artifacts._may_mean_full(problem) is expected


def test_many_small_ones_in_flight(manager):
    assert manager.add_many(((f"{n:03}", str(n).encode()) for n in range(100)), in_flight=16) == 100
    assert manager.get("042") == b"42"
    with pytest.raises(mobulafs.ArtifactExists):
        manager.add_many([("042", b"")])


def test_many_are_taken_as_there_is_place_and_one_that_fails_stops_no_other(manager, monkeypatch):
    added = 0
    lock = threading.Lock()
    add = manager.add

    def counted(name, data):
        nonlocal added
        try:
            return add(name, data)
        finally:
            with lock:
                added += 1

    monkeypatch.setattr(manager, "add", counted)
    ahead = []

    def items():
        for number in range(60):
            ahead.append(number - added)
            yield (f"{number:02}", 7 if number == 30 else b"%d" % number)

    with pytest.raises(mobulafs.BadArgument, match="int"):
        manager.add_many(items(), in_flight=4)
    assert max(ahead) <= 4
    assert manager.list_artifacts() == [f"{number:02}" for number in range(60) if number != 30]


def test_the_healer_tells_what_happened(manager):
    healer: AutoHealer = manager.healer
    health = healer.wait_until_healthy(30)
    assert health.whole and health.spaces_live == 3
    kinds = {event.kind for event in healer.events(timeout=0)}
    assert "node_new" in kinds
    assert list(healer.events(since=healer.latest(), timeout=0)) == []


def test_the_healer_lives_through_a_restart_of_the_namenode(tmp_path):
    port, page = free_ports("127.0.0.1", 2)
    namenode, datanode = (Daemon(tmp_path / name / "run", claim_limit=60) for name in ("namenode", "datanode"))
    args = ["namenode", "--dir", str(tmp_path / "namenode" / "data"), "--listen", f"127.0.0.1:{port}"]
    args += ["--http-port", str(page)]
    try:
        namenode.ensure(args)
        space = ["datanode", "--dir", str(tmp_path / "datanode" / "data"), "--listen", "127.0.0.1:0"]
        datanode.ensure([*space, "--namenode", f"127.0.0.1:{port}"])
        where = Deployment("none", "127.0.0.1", port, f"http://127.0.0.1:{page}")
        manager = DataManager(chunk_length=MIB, replication_factor=1, cluster=where)
        manager.add("a", b"1")
        namenode.kill()
        with ThreadPoolExecutor(1) as pool:
            told: list[str] = []
            healing = pool.submit(manager.heal, timeout=60, on_event=lambda event: told.append(event.kind))
            with pytest.raises(FuturesTimeout):
                healing.result(timeout=1)
            namenode.ensure(args)
            assert healing.result(timeout=60).whole
        # A number of the process before: all events of this one are new.
        kinds = {event.kind for event in manager.healer.events(since=10**6, timeout=0)}
        assert "node_new" in kinds
        assert list(manager.healer.events(since=manager.healer.latest(), timeout=0)) == []
        namenode.kill()
        with pytest.raises(TimeoutError, match="no NameNode answers"):
            manager.heal(timeout=0.5)
        with pytest.raises(mobulafs.NameNodeUnreachable):
            list(manager.healer.events(timeout=0))
    finally:
        datanode.kill()
        namenode.kill()


def test_a_restarted_namenode_is_believed_when_the_spaces_are_back():
    def health(live):
        return healer._health(
            {"healed": True, "under_replicated": 0, "limited_by_nodes": 0, "missing": 0, "pending_copies": 0}
            | {"nodes": [{"state": "live"}] * live}
        )

    known = healer._Known("first")
    assert known.look("first", health(3)) and known.look("first", health(2)), "one of them is dead now"
    assert not known.look("second", health(0)) and not known.look("second", health(1))
    assert known.look("second", health(2))
    assert not known.look("third", health(1))
    known._until = 0.0  # its time is over
    assert known.look("third", health(1))


def test_events_of_a_new_start_are_all_told_whatever_their_number(manager, monkeypatch):
    looker: AutoHealer = manager.healer
    news = healer._News(looker.latest(), looker._notices(0)["start"])
    assert looker._next(news, time.monotonic() + 5) == []
    news.start = "an earlier one"
    assert "node_new" in {event.kind for event in looker._next(news, time.monotonic() + 5)}
    assert looker._next(news, time.monotonic() + 5) == []


@pytest.mark.parametrize("kept", ["", "[[1", '{"a": 1}', "[[1, 2, null]]"])
def test_what_cannot_be_read_of_the_spaces_changes_is_no_change(tmp_path, kept):
    file = tmp_path / "spaces.json"
    file.write_text(kept)
    changes = Changes(file)
    assert changes.of("node", "10.0.0.1", ["node"]) == 0
    changes.add("node", "10.0.0.1", -1, ["node"])
    assert Changes(file).of("node", "10.0.0.1", ["node"]) == -1


def test_an_unfinished_upload_of_a_dead_driver_is_swept(manager):
    manager._files.pipe("/mobula/incoming/old", b"1")
    manager._files.client.set_times("/mobula/incoming/old", 1000, 1000)
    manager._files.pipe("/mobula/incoming/young", b"1")
    DataManager(cluster=manager.deployment)
    assert manager._files.find("/mobula/incoming") == ["/mobula/incoming/young"]


def test_ray_must_run():
    import ray

    if ray.is_initialized():
        pytest.skip("another test's Ray runs in this process")
    for call in (mobulafs.filesystem, mobulafs.ray.start, mobulafs.ray.status, mobulafs.ray.stop, DataManager):
        with pytest.raises(mobulafs.RayNotInitialised, match=r"ray\.init"):
            call()
