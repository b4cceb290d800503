"""`MobulaFileSystem` beyond fsspec's own suite."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import multiprocessing
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeout
from contextlib import ExitStack

import fsspec
import pytest
from conftest import wait_until
from fsspec.callbacks import Callback

import mobulafs
from mobulafs import MobulaFileSystem
from mobulafs.namenode import remote_exception

MIB = 1 << 20


def test_it_is_registered_and_parses_urls(mobula_cluster, mobula_fs):
    mobula_fs.pipe("/dir/a", b"1")
    fsspec.register_implementation("mobula", MobulaFileSystem, clobber=True)
    found, path = fsspec.core.url_to_fs(f"mobula://{mobula_cluster.host}:{mobula_cluster.port}/dir/a")
    assert isinstance(found, MobulaFileSystem) and path == "/dir/a"
    assert found.cat(path) == b"1"
    assert found.protocol == "hdfs"
    assert found.unstrip_protocol("/dir/a") == f"{mobula_cluster.uri}/dir/a"


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 65535, 65536, MIB - 1, MIB, 3 * MIB + 17])
def test_files_of_many_lengths(mobula_fs, noise, length):
    data = noise(length, length)
    mobula_fs.pipe("/f", data, block_size=MIB)
    assert mobula_fs.cat("/f") == data
    assert mobula_fs.size("/f") == length
    with mobula_fs.open("/f", "rb") as file:
        assert file.read() == data and file.read() == b"" and file.read(5) == b""


def test_reads_as_a_local_file_does(mobula_fs, noise, tmp_path):
    """A random walk of seeks and reads, next to the same on a local file. Its seed is printed with a failure."""
    import random

    data = noise(5 * MIB + 123, 7)
    (tmp_path / "f").write_bytes(data)
    mobula_fs.pipe("/f", data, block_size=MIB)
    seed = int(os.environ.get("MOBULA_SEED", time.time_ns() % 1_000_000))
    rng = random.Random(seed)
    with (tmp_path / "f").open("rb") as local, mobula_fs.open("/f", "rb") as remote:
        for step in range(120):
            kind = rng.choice(["read", "read", "read", "into", "seek", "back", "end", "line"])
            if kind == "seek":
                at = rng.randrange(len(data) + 10)
                assert local.seek(at) == remote.seek(at)
            elif kind == "back":
                at = rng.randrange(min(local.tell(), 1000) + 1)
                assert local.seek(-at, io.SEEK_CUR) == remote.seek(-at, io.SEEK_CUR)
            elif kind == "end":
                assert local.seek(-rng.randrange(1000), io.SEEK_END) and True
                remote.seek(local.tell())
            elif kind == "into":
                ours = bytearray(rng.choice([10, MIB - 1, MIB, 2 * MIB]))
                its = bytearray(len(ours))
                assert local.readinto(ours) == remote.readinto(its), f"MOBULA_SEED={seed} step {step}"
                assert ours == its, f"MOBULA_SEED={seed} step {step}"
            elif kind == "line":
                assert local.readline() == remote.readline(), f"MOBULA_SEED={seed} step {step}"
            else:
                size = rng.choice([1, 10, 1000, 70_000, MIB, 3 * MIB])
                assert local.read(size) == remote.read(size), f"MOBULA_SEED={seed} step {step}"
            assert local.tell() == remote.tell(), f"MOBULA_SEED={seed} step {step}"


class _Interrupted:
    """A reader of `hdfs-native` whose stream is interrupted once, after its third piece, as Ctrl-C does it."""

    def __init__(self, inner):
        self._inner = inner
        self._left = 3

    def read_range(self, offset, length):
        return self._inner.read_range(offset, length)

    def read_range_stream(self, offset, length):
        self._stream = self._inner.read_range_stream(offset, length)
        return self

    def __next__(self):
        piece = next(self._stream)
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt  # the piece is gone with it
        return piece


def test_a_read_that_was_interrupted_loses_no_bytes(mobula_fs, noise):
    data = noise(5 * MIB + 123, 8)
    mobula_fs.pipe("/f", data, block_size=MIB)
    with mobula_fs.open("/f", "rb") as file:
        file._inner = _Interrupted(file._inner)
        assert file.read(10) == data[:10]
        with pytest.raises(KeyboardInterrupt):
            file.read(3 * MIB)
        assert file.tell() == 10
        assert file.read(1000) == data[10:1010]
        assert file.read() == data[1010:]


class _Cut:
    """A reader of `hdfs-native` whose streams end early, which they never should."""

    def __init__(self, inner):
        self._inner = inner

    def read_range_stream(self, offset, length):
        yield from self._inner.read_range_stream(offset, length - 1)


@pytest.mark.parametrize("at", [0, 10], ids=["all", "behind a seek"])
def test_what_comes_too_short_is_no_read(mobula_fs, noise, at):
    data = noise(3 * MIB, 9)
    mobula_fs.pipe("/f", data, block_size=MIB)
    with mobula_fs.open("/f", "rb") as file:
        inner, file._inner = file._inner, _Cut(file._inner)
        file.seek(at)
        for read in (file.read, lambda: file.readinto(bytearray(3 * MIB))):
            with pytest.raises(OSError, match="/f"):
                read()
            assert file.tell() == at
        file._inner = inner
        assert file.read() == data[at:]


def test_ranges_never_reach_past_the_end(mobula_fs):
    mobula_fs.pipe("/f", b"0123456789")
    assert mobula_fs.cat_file("/f", 2, 4) == b"23"
    assert mobula_fs.cat_file("/f", -3) == b"789"
    assert mobula_fs.cat_file("/f", 8, 100) == b"89"
    assert mobula_fs.cat_file("/f", 50, 100) == b""
    assert mobula_fs.cat_file("/f", 5, 2) == b""
    assert mobula_fs.cat_ranges(["/f", "/f", "/none"], [0, 9, 0], [2, 90, 1])[:2] == [b"01", b"9"]
    assert isinstance(mobula_fs.cat_ranges(["/none"], [0], [1])[0], FileNotFoundError)
    assert mobula_fs.read_block("/f", 3, 2) == b"34"
    assert mobula_fs.head("/f", 3) == b"012" and mobula_fs.tail("/f", 3) == b"789"


def test_many_threads_read_and_write_at_once(mobula_fs, noise):
    data = noise(2 * MIB, 3)
    mobula_fs.pipe("/shared", data, block_size=MIB)

    def one(number: int) -> None:
        mine = noise(10_000 * number, number)
        mobula_fs.pipe(f"/many/{number}", mine)
        assert mobula_fs.cat(f"/many/{number}") == mine
        at = number * 1000
        assert mobula_fs.cat_file("/shared", at, at + 5000) == data[at : at + 5000]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(24)))
    assert len(mobula_fs.ls("/many")) == 24
    assert sorted(mobula_fs.cat("/many/*")) == sorted(f"/many/{n}" for n in range(24))


def test_it_works_inside_event_loops(mobula_fs):
    async def job(number: int) -> bytes:
        mobula_fs.pipe(f"/{number}", b"x" * number)  # called on the loop itself
        return await asyncio.to_thread(mobula_fs.cat, f"/{number}")

    async def jobs() -> list[bytes]:
        return await asyncio.gather(*(job(number) for number in range(4)))

    for _ in range(2):
        assert [len(data) for data in asyncio.run(jobs())] == [0, 1, 2, 3]


def _child(files, pipe):
    try:
        pipe.send(files.cat("/f"))
    except BaseException as problem:  # noqa: BLE001 - the parent shows it
        pipe.send(repr(problem))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_survives_fork_and_pickle(mobula_fs, method):
    mobula_fs.pipe("/f", b"inherited")
    assert pickle.loads(pickle.dumps(mobula_fs)).cat("/f") == b"inherited"
    context = multiprocessing.get_context(method)
    ours, childs = context.Pipe()
    child = context.Process(target=_child, args=(mobula_fs, childs))
    child.start()
    assert ours.poll(40) and ours.recv() == b"inherited"  # 60 s if the child had waited for its parent's connection
    child.join(30)
    assert child.exitcode == 0


def _child_of_open_files(reader, writer, namenode, pipe):
    told = []
    for use in (lambda: reader.read(5), lambda: reader.read_range(0, 5), lambda: writer.write(b"2"), writer.hsync):
        try:
            told.append(use())
        except OSError as problem:
            told.append(str(problem))
    writer.close()
    reader.close()
    told.append(namenode.stats().missing)
    told.append(namenode._client_id)
    pipe.send(told)


def test_what_was_open_at_a_fork_is_the_parents(mobula_fs):
    """With every lock held meanwhile, as by another thread: the child has a copy that nobody gives back."""
    mobula_fs.pipe("/f", b"0123456789")
    assert mobula_fs.namenode.stats().missing == 0
    context = multiprocessing.get_context("fork")
    ours, childs = context.Pipe()
    with mobula_fs.open("/f", "rb") as reader, mobula_fs.open("/g", "wb") as writer:
        assert reader.read(2) == b"01"
        writer.write(b"1")
        child = context.Process(target=_child_of_open_files, args=(reader, writer, mobula_fs.namenode, childs))
        with ExitStack() as held:
            for lock in (reader._lock, writer._lock):
                thread = held.enter_context(ThreadPoolExecutor(1))
                thread.submit(lock.acquire).result()
                held.callback(lambda thread=thread, lock=lock: thread.submit(lock.release).result())
            child.start()
        try:
            assert ours.poll(20), "the child hangs"
            *refused, missing, identity = ours.recv()
        finally:
            child.kill()
            child.join()
        assert len(refused) == 4 and all("before a fork" in str(told) for told in refused), refused
        assert missing == 0
        assert identity != mobula_fs.namenode._client_id, "each call is answered once for each process"
        assert mobula_fs.namenode._idle, "the parent's connection is the parent's"
        assert mobula_fs.namenode.stats().missing == 0
        assert reader.read() == b"23456789"
        writer.write(b"3")
    assert mobula_fs.cat("/g") == b"13"


def test_options_travel_with_it(mobula_cluster):
    files = mobula_cluster.filesystem(replication=2, block_size=MIB)
    again = pickle.loads(pickle.dumps(files))
    again.pipe("/f", b"x" * (2 * MIB))
    assert again.info("/f")["replication"] == 2
    assert again.info("/f")["block_size"] == MIB
    blocks = again.block_locations("/f")
    assert [block.length for block in blocks] == [MIB, MIB] and [block.offset for block in blocks] == [0, MIB]
    assert all(len(block.nodes) == 2 for block in blocks)


def test_open_files_do_not_pickle(mobula_fs):
    mobula_fs.pipe("/f", b"1")
    with mobula_fs.open("/f", "rb") as file, pytest.raises(TypeError, match="path"):
        pickle.dumps(file)


def test_errors_are_pythons(mobula_fs):
    mobula_fs.mkdir("/d")
    mobula_fs.pipe("/f", b"1")
    for wrong in (
        mobula_fs.cat_file,
        mobula_fs.info,
        mobula_fs.ls,
        mobula_fs.rm,
        mobula_fs.rm_file,
        mobula_fs.rmdir,
    ):
        with pytest.raises(FileNotFoundError):
            wrong("/none")
    with pytest.raises(FileExistsError):
        mobula_fs.mkdir("/d")
    with pytest.raises(FileExistsError):
        mobula_fs.open("/f", "xb")
    with pytest.raises(FileExistsError):
        mobula_fs.pipe_file("/f", b"2", mode="create")
    assert mobula_fs.cat("/f") == b"1"
    with pytest.raises(IsADirectoryError):
        mobula_fs.open("/d", "rb")
    with pytest.raises(NotADirectoryError):
        mobula_fs.open("/f/below", "wb")
    with pytest.raises(NotADirectoryError):
        mobula_fs.rmdir("/f")
    mobula_fs.pipe("/d/f", b"1")
    with pytest.raises(OSError, match="empty"):
        mobula_fs.rmdir("/d")
    with pytest.raises(ValueError, match="Invalid path"):
        mobula_fs.pipe("/a:b/../c", b"")
    with pytest.raises(mobulafs.RemoteError, match="replication"):
        mobula_fs.pipe("/r", b"", replication=600)
    with pytest.raises(ValueError, match="mode"):
        mobula_fs.open("/f", "rwb")


def test_a_directory_where_a_file_is_wanted_is_told_as_that(mobula_fs):
    mobula_fs.mkdir("/d")
    for wrong in (
        mobula_fs.block_locations,
        lambda path: mobula_fs.truncate(path, 1),
        lambda path: mobula_fs.open(path, "rb"),
        lambda path: mobula_fs.open(path, "ab"),
    ):
        with pytest.raises(IsADirectoryError, match="/d"):
            wrong("/d")
    for missing in (mobula_fs.block_locations, mobula_fs.open):
        with pytest.raises(FileNotFoundError):
            missing("/what is not a file")


def test_a_file_that_another_one_writes_is_told_as_that(mobula_cluster, mobula_fs):
    other = mobula_cluster.filesystem(replication=1)
    with mobula_fs.open("/f", "wb") as file:
        file.write(b"1")
        file.hsync()
        for wrong in (lambda: other.open("/f", "ab"), lambda: other.truncate("/f", 0)):
            with pytest.raises(OSError, match="being written") as told:
                wrong()
            assert told.value.errno == errno.EBUSY
        with pytest.raises(FileExistsError):
            other.open("/f", "xb")
    with other.open("/f", "ab") as file:
        file.write(b"2")
    assert mobula_fs.cat("/f") == b"12"


class _Refused:
    """A writer of `hdfs-native` whose DataNode, or NameNode, has just died."""

    def write(self, data):
        raise OSError("Connection refused (os error 111)")


def test_a_writers_refused_connection_is_the_namenodes_only_if_that_is_gone():
    with mobulafs.local(datanodes=1) as cluster:
        files = cluster.filesystem()
        writers = [files.open(f"/{number}", "wb") for number in range(2)]
        for writer in writers:
            writer._inner = _Refused()
        with pytest.raises(mobulafs.BlocksUnreachable, match="no DataNode takes"):
            writers[0].write(b"1" * (2 * MIB))
    with pytest.raises(mobulafs.NameNodeUnreachable):
        writers[1].write(b"1" * (2 * MIB))


def test_a_pipeline_that_is_lost_is_no_failed_read(tmp_path):
    with mobulafs.local(datanodes=1) as cluster:
        file = cluster.filesystem().open("/f", "wb")
        file.write(b"1")
        file.hsync()
    with pytest.raises(mobulafs.BlocksUnreachable, match="no DataNode takes"):
        file.write(b"1" * (2 * MIB))
        file.hsync()


def test_names_of_all_kinds(mobula_fs):
    for name in ("ä ö", "a#b?c%20", "日本", "[x]", "-rf", "a\tb"):
        mobula_fs.pipe_file(f"/names/{name}", name.encode())
        assert mobula_fs.cat_file(f"/names/{name}") == name.encode()
    assert len(mobula_fs.ls("/names", detail=False)) == 6


@pytest.mark.parametrize("name", ["[x]", "a\\b", "*", "?", "{x,y}", "x]"])
def test_a_checksum_is_the_named_files_whatever_its_name_means_to_a_shell(mobula_fs, name):
    for other in ("x", "ab", "xy", "y"):
        mobula_fs.pipe_file(f"/names/{other}", b"other")
    mobula_fs.pipe_file(f"/names/{name}", b"this one")
    mobula_fs.pipe_file("/same", b"this one")
    assert mobula_fs.checksum(f"/names/{name}") == mobula_fs.checksum("/same")


def test_find_glob_du_walk(mobula_fs):
    for path in ("/t/a", "/t/b/c", "/t/b/d/e"):
        mobula_fs.pipe(path, b"12345")
    mobula_fs.mkdir("/t/empty")
    assert mobula_fs.find("/t") == ["/t/a", "/t/b/c", "/t/b/d/e"]
    assert "/t/empty" in mobula_fs.find("/t", withdirs=True)
    assert mobula_fs.find("/t", maxdepth=1) == ["/t/a"]
    assert mobula_fs.find("/none") == []
    assert mobula_fs.find("/t/a") == ["/t/a"]
    assert mobula_fs.glob("/t/*/c") == ["/t/b/c"]
    assert mobula_fs.glob("/t/**/e") == ["/t/b/d/e"]
    assert mobula_fs.du("/t") == 15
    assert mobula_fs.du("/t", total=False)["/t/b/c"] == 5
    assert [len(files) for _, _, files in mobula_fs.walk("/t")] == [1, 1, 1, 0]


def test_find_omits_what_vanishes_meanwhile_and_nothing_else(mobula_fs, monkeypatch):
    paths = [f"/t/{folder}/{name}" for folder in ("a", "b", "c") for name in ("1", "2")]
    paths += ["/t/0", "/t/z"]
    for path in paths:
        mobula_fs.pipe(path, b"1")
    walked = mobula_fs.client.list_status

    def list_status(path, recursive):
        """The server's walk, of which somebody removes a directory whose entry was told just now."""
        for status in walked(path, recursive):
            yield status
            if status.path == "/t/b" and mobula_fs.exists("/t/b"):
                mobula_fs.rm("/t/b", recursive=True)

    kept = sorted(path for path in paths if not path.startswith("/t/b/"))
    monkeypatch.setattr(mobula_fs.client, "list_status", list_status)
    assert mobula_fs.find("/t") == kept
    assert not mobula_fs.exists("/t/b")
    mobula_fs.pipe("/t/b/1", b"1")
    assert mobula_fs.find("/t", withdirs=True) == sorted(["/t", "/t/a", "/t/c", *kept])


def test_moves_and_copies(mobula_fs):
    mobula_fs.pipe("/a", b"1")
    mobula_fs.mkdir("/d")
    mobula_fs.mv("/a", "/d")
    assert mobula_fs.cat("/d/a") == b"1" and not mobula_fs.exists("/a")
    mobula_fs.pipe("/b", b"2")
    mobula_fs.mv("/b", "/d/a")
    assert mobula_fs.cat("/d/a") == b"2"
    mobula_fs.cp_file("/d/a", "/copy")
    assert mobula_fs.cat("/copy") == b"2"
    with pytest.raises(FileNotFoundError):
        mobula_fs.cp_file("/none", "/copy2")
    assert not mobula_fs.exists("/copy2")
    assert mobula_fs.find("/") == ["/copy", "/d/a"]


def test_transactions(mobula_fs):
    with mobula_fs.transaction:
        with mobula_fs.open("/t", "wb") as file:
            file.write(b"1")
        assert not mobula_fs.exists("/t")
    assert mobula_fs.cat("/t") == b"1"
    with pytest.raises(RuntimeError, match="changed my mind"), mobula_fs.transaction:
        with mobula_fs.open("/t", "wb") as file:
            file.write(b"2")
        raise RuntimeError("changed my mind")
    assert mobula_fs.cat("/t") == b"1"
    assert mobula_fs.find("/") == ["/t"]


@pytest.mark.parametrize("how", ["pipe", "put", "copy", "create", "text"])
def test_transactions_hold_whatever_way_a_file_is_written(mobula_fs, tmp_path, how):
    (tmp_path / "new").write_bytes(b"new")
    mobula_fs.pipe("/source", b"new")
    target = "/t" if how in ("pipe", "put", "copy") else "/fresh"
    mobula_fs.pipe("/t", b"old")

    def write():
        if how == "pipe":
            mobula_fs.pipe("/t", b"new")
        elif how == "put":
            mobula_fs.put_file(tmp_path / "new", "/t")
        elif how == "copy":
            mobula_fs.cp_file("/source", "/t")
        elif how == "create":
            mobula_fs.pipe_file("/fresh", b"new", mode="create")
        else:
            with mobula_fs.open("/fresh", "x", encoding="utf-8") as file:
                file.write("new")

    before = ["/source", "/t"]
    with pytest.raises(RuntimeError, match="changed my mind"), mobula_fs.transaction:
        write()
        raise RuntimeError("changed my mind")
    assert mobula_fs.cat("/t") == b"old" and mobula_fs.find("/") == before
    with mobula_fs.transaction:
        write()
        assert mobula_fs.cat("/t") == b"old" and not mobula_fs.exists("/fresh")
    assert mobula_fs.cat(target) == b"new" and mobula_fs.find("/") == sorted({*before, target})


def test_a_transaction_refuses_what_it_cannot_take_back(mobula_fs):
    mobula_fs.pipe("/t", b"old")
    with mobula_fs.transaction:
        with pytest.raises(mobulafs.NotSupported, match="append"):
            mobula_fs.open("/t", "ab")
        with pytest.raises(FileExistsError):
            mobula_fs.open("/t", "xb")
    with pytest.raises(FileExistsError), mobula_fs.transaction:
        with mobula_fs.open("/x", "xb") as file:
            file.write(b"late")
        mobula_fs.client.create("/x").close()  # by somebody else, meanwhile
    assert mobula_fs.cat("/t") == b"old" and mobula_fs.cat("/x") == b""
    assert mobula_fs.find("/") == ["/t", "/x"]


def _failing_write(files, folder):
    with files.open("/t", "wb") as file:
        file.write(b"1" * (2 * MIB))
        with pytest.raises(OSError, match="broken"), file._guarded():
            raise OSError("broken")


def _failing_put(files, folder):
    def stop(*_):
        raise OSError("broken")

    (folder / "in").write_bytes(b"1" * MIB)
    callback = Callback()
    callback.relative_update = stop
    with pytest.raises(OSError, match="broken"):
        files.put_file(folder / "in", "/t", callback=callback)


def _unclosed(files, folder):
    files.open("/t", "wb").write(b"1")


@pytest.mark.parametrize("fail", [_failing_write, _failing_put, _unclosed])
def test_a_transaction_commits_no_file_that_is_not_whole(mobula_fs, tmp_path, fail):
    mobula_fs.pipe("/t", b"old")
    with pytest.raises(OSError, match="not committed"), mobula_fs.transaction:
        fail(mobula_fs, tmp_path)
    assert mobula_fs.cat("/t") == b"old"
    assert mobula_fs.find("/") == ["/t"]


def test_a_transaction_that_cannot_be_committed_is_over(mobula_fs):
    with pytest.raises(OSError, match="not closed"), mobula_fs.transaction:
        mobula_fs.open("/over/unclosed", "wb").write(b"1")
        mobula_fs.pipe("/over/behind", b"2")
    mobula_fs.pipe("/over/later", b"3")
    assert mobula_fs.ls("/over", detail=False) == ["/over/later"]


def test_progress_and_local_files(mobula_fs, noise, tmp_path):
    data = noise(9 * MIB, 1)
    (tmp_path / "in").write_bytes(data)
    for call in (
        lambda seen: mobula_fs.put_file(tmp_path / "in", "/f", callback=seen),
        lambda seen: mobula_fs.get_file("/f", tmp_path / "out", callback=seen),
    ):
        seen = Callback()
        call(seen)
        assert seen.size == seen.value == len(data)
    assert (tmp_path / "out").read_bytes() == data


def test_times_checksum_and_replication(mobula_fs):
    mobula_fs.pipe("/f", b"1" * 1000)
    mobula_fs.pipe("/same", b"1" * 1000)
    mobula_fs.pipe("/other", b"2" * 1000)
    assert mobula_fs.checksum("/f") == mobula_fs.checksum("/same") != mobula_fs.checksum("/other")
    assert abs(mobula_fs.modified("/f").timestamp() - time.time()) < 60
    key = mobula_fs.ukey("/f")
    mobula_fs.pipe("/f", b"12")
    assert mobula_fs.ukey("/f") != key
    mobula_fs.set_replication("/f", 1)
    assert mobula_fs.info("/f")["replication"] == 1
    mobula_fs.touch("/f", truncate=False)
    assert mobula_fs.size("/f") == 2
    mobula_fs.touch("/f")
    assert mobula_fs.size("/f") == 0


def test_text_and_small_writes(mobula_fs):
    with mobula_fs.open("/text", "w", encoding="utf-8") as file:
        for number in range(1000):
            file.write(f"Zeile {number} ä\n")
    with mobula_fs.open("/text", "r", encoding="utf-8") as file:
        lines = file.readlines()
    assert len(lines) == 1000 and lines[999] == "Zeile 999 ä\n"
    with mobula_fs.open("/z.gz", "wb", compression="gzip") as file:
        file.write(b"packed")
    assert mobula_fs.open("/z.gz", "rb", compression="infer").read() == b"packed"


def test_a_synced_file_is_visible_before_it_is_closed(mobula_fs):
    with mobula_fs.open("/f", "wb") as file:
        file.write(b"first")
        file.hsync()
        assert mobula_fs.info("/f")["size"] in (0, 5)  # HDFS's listing need not know an open file's length
        file.write(b" second")
        assert file.tell() == 12
    assert mobula_fs.cat("/f") == b"first second"


def test_a_file_of_which_a_write_failed_never_is_whole(mobula_fs):
    """Not when it is closed, and not when it is collected: `hdfs-native` completes it then."""
    file = mobula_fs.open("/f", "wb")
    file.write(b"1" * (2 * MIB))
    with pytest.raises(OSError, match="broken"), file._guarded():
        raise OSError("broken")
    with pytest.raises(OSError, match="earlier write"):
        file.write(b"2")
    file.close()
    del file
    gc.collect()
    assert mobula_fs.namenode.listing("/f")[0].under_construction


def test_append(mobula_fs, noise):
    data = noise(3 * MIB, 5)
    for at in range(0, len(data), 700_001):
        with mobula_fs.open("/f", "ab", block_size=MIB) as file:
            assert file.tell() == at
            file.write(data[at : at + 700_001])
    assert mobula_fs.cat("/f") == data
    with mobula_fs.open("/f", "ab") as file:
        file.write(b"synced")
        file.hsync()
        assert mobula_fs.cat("/f")[len(data) :] in (b"synced", b"")  # the length that a reader is told may be older
    assert mobula_fs.tail("/f", 6) == b"synced"


def test_truncate_and_concat(mobula_fs):
    mobula_fs.pipe("/f", b"1" * 512 + b"2" * 512, block_size=512)
    assert mobula_fs.truncate("/f", 512) is True
    assert mobula_fs.cat("/f") == b"1" * 512
    mobula_fs.pipe("/g", b"3" * 512, block_size=512)
    mobula_fs.concat("/f", ["/g"])
    assert mobula_fs.cat("/f") == b"1" * 512 + b"3" * 512
    assert not mobula_fs.exists("/g")
    mobula_fs.truncate("/f", 700)
    wait_until(lambda: mobula_fs.info("/f")["size"] == 700, 30, "the last block is cut")


def test_what_a_server_does_not_have_is_told_as_that():
    problem = remote_exception("java.lang.UnsupportedOperationException", "append is not supported yet\n\tat ...")
    assert isinstance(problem, mobulafs.NotSupported) and str(problem) == "append is not supported yet"
    full = remote_exception("java.io.IOException", "File /f could only be written to 0 of the 1 minReplication nodes.")
    assert isinstance(full, OSError) and full.errno == errno.ENOSPC


def test_paths_of_many_forms():
    strip = MobulaFileSystem._strip_protocol
    for path in ("/a/b", "a/b", "hdfs://h:1/a/b", "mobula://h/a/b/", "h:1/a/b", "//a//b/"):
        assert strip(path) == "/a/b", path
    assert strip("hdfs://h:1") == strip("") == strip("/") == "/"
    assert strip(["/a", "b"]) == ["/a", "/b"]


def test_a_namenode_that_is_not_there_is_told_within_seconds():
    files = MobulaFileSystem("127.0.0.1", 1)
    began = time.monotonic()
    with pytest.raises(mobulafs.NameNodeUnreachable, match=r"hdfs://127\.0\.0\.1:1"):
        files.ls("/")
    with pytest.raises(ConnectionError):
        files.namenode.stats()
    assert time.monotonic() - began < 6


def test_a_namenode_that_comes_back_is_waited_for(tmp_path):
    """One that worked is retried for 30 s: a restart within that is no error."""
    with mobulafs.local(datanodes=1, dir=tmp_path) as cluster:
        files = cluster.filesystem()
        files.pipe("/f", b"1")
        port = cluster.port
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(files.cat, "/f")
        with pytest.raises(FuturesTimeout):
            waiting.result(timeout=1)
        with mobulafs.local(datanodes=1, dir=tmp_path, port=port):
            assert waiting.result(timeout=30) == b"1"
            assert files.namenode.stats().missing == 0


def test_nodes_and_counters(mobula_fs):
    nodes = mobula_fs.namenode.nodes()
    assert len(nodes) == 3 and all(node.live and node.capacity > 0 for node in nodes)
    stats = mobula_fs.namenode.stats()
    assert stats.missing == 0 and stats.capacity > 0
    for number in range(5):
        mobula_fs.pipe(f"/d/{number}", b"x")
    entries = mobula_fs.namenode.listing("/d")
    assert [entry.name for entry in entries] == ["0", "1", "2", "3", "4"]
    assert all(len(entry.blocks[0].nodes) == 3 for entry in entries)


def test_buffers_of_all_kinds(mobula_fs, noise):
    import array

    data = noise(3 * MIB, 9)
    kinds = [data, bytearray(data), memoryview(data), memoryview(bytearray(data)), memoryview(data + data)[::2]]
    kinds += [array.array("i", data), memoryview(data).cast("i"), b"", memoryview(b"")]
    for value in kinds:
        with mobula_fs.open("/f", "wb") as file:
            assert file.write(value) == memoryview(value).nbytes
        assert mobula_fs.cat("/f") == memoryview(value).tobytes()
