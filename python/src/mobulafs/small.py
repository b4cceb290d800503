"""Small files, written with as few calls and waits as HDFS's protocols allow: one block, one or two packets.

A file is made under a temporary name, with its block; block and end go to the first DataNode in one piece; then it is
closed and gets its name. Mobula's NameNode does the first and the last in one step of its log each; another one is
asked step by step. Anything that does not go smoothly is given up and taken back: whoever calls writes the file in
the usual way then, which knows about failing DataNodes.

Invariants: `store` returns when every DataNode of the pipeline has synced the bytes, and the NameNode the name; a file
has its name only when it is whole. Knows no fsspec and no Ray.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import threading
import time
import zlib

from . import protobuf as pb
from .errors import MobulaError, NameNodeUnreachable
from .namenode import NameNode

__all__ = ["LENGTH_MAX", "NotStored", "store"]

#: A packet of HDFS has 126 chunks: what is longer is not written here.
LENGTH_MAX = 126 * 512
_CHUNK = 512
#: Longest silence of a DataNode. What takes longer is left to who can go around it.
_DATANODE_LIMIT = 10.0
#: Connections that wait for a next block, to all DataNodes together; ours close them after 4 s.
_KEPT_MAX = 32
_KEPT_LIMIT = 3.0
#: HDFS: `dfs.client.block.write.locateFollowingBlock.initial.delay.ms`, which doubles, and so many tries.
_COMPLETE_PAUSE = 0.4
_COMPLETE_TRIES = 5
_SETUP_CREATE = 6  # OpWriteBlockProto.BlockConstructionStage.PIPELINE_SETUP_CREATE
#: Python has a fast CRC32 and no CRC32C. HDFS takes either, and a replica remembers which.
_CHECKSUM = pb.encode([(1, 1), (2, _CHUNK)])  # ChecksumProto: CHECKSUM_CRC32
_BLOCK_INDICES = 9  # LocatedBlockProto
_PORT_MAX = 0xFFFF
_WRITE_BLOCK = b"\x00\x1c\x50"  # DataTransferProtocol 28, operation 80


class _HungUp(ConnectionError):
    """A DataNode closed the connection before it answered."""


class _Kept:
    """Connections to DataNodes that wait for the next block. A child of a fork begins without."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        #: By address, the newest last, each with when it was last used.
        self._waiting: dict[tuple[str, int], list[tuple[float, socket.socket]]] = {}

    def take(self, address: tuple[str, int]) -> socket.socket | None:
        if self._owner != os.getpid():
            self.begin()  # a fork past Python's hooks
        with self._lock:
            old = self._forget_old()
            waiting = self._waiting.get(address)
            found = waiting.pop()[1] if waiting else None
        for connection in old:
            connection.close()
        return found

    def keep(self, address: tuple[str, int], connection: socket.socket) -> None:
        with self._lock:
            fits = sum(map(len, self._waiting.values())) < _KEPT_MAX
            if fits:
                self._waiting.setdefault(address, []).append((time.monotonic(), connection))
        if not fits:
            connection.close()

    def _forget_old(self) -> list[socket.socket]:
        limit = time.monotonic() - _KEPT_LIMIT
        old = []
        for address, waiting in list(self._waiting.items()):
            old += [connection for since, connection in waiting if since < limit]
            young = [one for one in waiting if one[0] >= limit]
            if young:
                self._waiting[address] = young
            else:
                del self._waiting[address]
        return old


_kept = _Kept()
os.register_at_fork(after_in_child=_kept.begin)


class NotStored(Exception):
    """Nothing was stored under the name; why is its cause. What may be left in the folder of temporaries is swept."""


def store(
    namenode: NameNode,
    temporary: str,
    target: str,
    data: bytes,
    replication: int,
    block_size: int,
    overwrite: bool,
    favored: str | None = None,
) -> None:
    """Stores a file of at most LENGTH_MAX bytes. `favored`: the DataNode (`ip:port`) that takes the first copy.

    Raises NotStored, FileExistsError if the target is there and not to be replaced, and NameNodeUnreachable if no
    NameNode answers, so that perhaps nobody can tell whether it was stored. Who is interrupted does not wait until the
    temporary file is gone: it is swept as that of a driver that died.
    """
    try:
        file, last = _write(namenode, temporary, data, replication, block_size, favored)
    except NameNodeUnreachable:
        raise  # who does not answer would not answer the usual way either; what is left is swept one day
    except Exception as problem:
        _discard(namenode, temporary)
        if isinstance(problem, (OSError, ValueError, MobulaError)):
            raise NotStored(str(problem)) from problem
        raise
    try:
        _finish(namenode, temporary, file, last, target, overwrite)
    except NameNodeUnreachable:
        raise
    except Exception as problem:
        removed = _discard(namenode, temporary)
        expected = isinstance(problem, (OSError, ValueError, MobulaError))
        if expected and not removed and _is_at(namenode, target, file):
            return  # it went well, and was told as something else
        if not expected or isinstance(problem, FileExistsError):
            raise
        if removed:
            raise NotStored(str(problem)) from problem
        raise NameNodeUnreachable(f"nobody can tell whether {target} was stored: {problem}") from problem


def _write(
    namenode: NameNode, path: str, data: bytes, replication: int, block_size: int, favored: str | None
) -> tuple[int, bytes | None]:
    """The file's id, and its only block as it is to be completed."""
    file, located = namenode.create(path, replication, block_size, first_block=bool(data) and not favored)
    if not data:
        return file, None
    if located is None:
        located = namenode.add_block(path, file, favored)
    # ExtendedBlockProto's field 4, the length: of several the last one counts.
    block = pb.raw(located, 1) + pb.encode([(4, len(data))])
    _send(located, block, data, namenode.holder)
    return file, block


def _finish(namenode: NameNode, path: str, file: int, last: bytes | None, target: str, overwrite: bool) -> None:
    for attempt in itertools.count(1):
        closed, renamed = namenode.complete(path, file, last, target, overwrite)
        if closed:
            break
        if attempt == _COMPLETE_TRIES:
            raise OSError(f"{path}: the NameNode does not close it: no DataNode has reported its block")
        time.sleep(_COMPLETE_PAUSE * 2 ** (attempt - 1))
    if not renamed:
        namenode.rename(path, target, overwrite)


def _discard(namenode: NameNode, path: str) -> bool:
    """Whether it was there, and is gone: then it can have no other name."""
    try:
        return namenode.delete(path)
    except (OSError, ValueError, MobulaError):
        return False  # it was never made, or is swept one day: the first failure is the one to tell


def _is_at(namenode: NameNode, path: str, file: int) -> bool:
    """Whether that very file has the name."""
    try:
        return file != 0 and namenode.file_at(path) == file
    except (OSError, ValueError, MobulaError):
        return False


def _send(located: pb.Fields, block: bytes, data: bytes, holder: str) -> None:
    """Writes the block to its pipeline; returns when all of it have synced it."""
    nodes = located.get(3, [])
    if not nodes:
        raise OSError("no DataNode takes the block")
    if _BLOCK_INDICES in located:
        raise OSError("a striped block, of which each DataNode takes another part")
    first = pb.message(pb.decode(_bytes(nodes[0])), 1)
    address = (pb.text(first, 1), pb.number(first, 4))
    if address[1] > _PORT_MAX:
        raise ValueError(f"no port: {address[1]}")
    operation = pb.delimited(_operation(located, block, holder))
    # All at once: the answers come in turn, and there are two at most to read before the end.
    request = b"".join((_WRITE_BLOCK, operation, _packet(0, 0, data), _packet(1, len(data), b"")))
    while (connection := _kept.take(address)) is not None:
        if _has_spoken(connection):
            connection.close()  # nothing is due: it has hung up, as Apache's DataNodes do behind every block
            continue
        try:
            _converse(address, connection, request, len(nodes))
            return
        except _HungUp:
            pass  # just now, as ours do after a silence
    connection = socket.create_connection(address, timeout=_DATANODE_LIMIT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _converse(address, connection, request, len(nodes))


def _has_spoken(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _converse(address: tuple[str, int], connection: socket.socket, request: bytes, nodes: int) -> None:
    """Sends a block, hears that so many nodes have synced it, and keeps the connection; all else ends it."""
    try:
        answers = _Answers(connection)
        try:
            connection.sendall(request)
            setup = answers.next()
        except (BrokenPipeError, ConnectionResetError) as problem:
            raise _HungUp(f"a DataNode hung up: {problem}") from problem
        if pb.number(setup, 1) != 0:
            raise OSError(f"a DataNode refused the block: {pb.text(setup, 5)} {pb.text(setup, 2)}")
        while True:
            ack = answers.next()
            replies = _replies(ack)
            if len(replies) != nodes or any(reply != 0 for reply in replies):
                raise OSError(f"of {nodes} DataNodes not all have it: {replies}")
            if pb.number(ack, 1) == pb.zigzag(1):
                break
    except BaseException:
        connection.close()
        raise
    _kept.keep(address, connection)


def _operation(located: pb.Fields, block: bytes, holder: str) -> bytes:
    nodes, kinds, storages = (located.get(field, []) for field in (3, 7, 8))
    header = pb.encode([(1, pb.encode([(1, block), (2, pb.raw(located, 5))])), (2, holder)])
    fields: list[tuple[int, int | str | bytes]] = [(1, header)]
    fields += [(2, node) for node in nodes[1:]]
    # No new stamp (8): a DataNode of HDFS 3.4.1 takes one as leave to delete a replica that is there.
    fields += [(4, _SETUP_CREATE), (5, len(nodes)), (6, 0), (7, 0), (8, 0), (9, _CHECKSUM)]
    fields += [(11, kind) for kind in kinds[:1]]
    fields += [(12, kind) for kind in kinds[1:]]
    fields += [(16, storage) for storage in storages[:1]]
    fields += [(17, storage) for storage in storages[1:]]
    return pb.encode(fields)


def _packet(number: int, offset: int, data: bytes) -> bytes:
    """A packet; one without data is the last, and has the block synced."""
    sums = b"".join(zlib.crc32(data[at : at + _CHUNK]).to_bytes(4, "big") for at in range(0, len(data), _CHUNK))
    # PacketHeaderProto: offset, number, last, length, sync.
    end = 0 if data else 1
    header = struct.pack("<BqBqBBBiBB", 0x09, offset, 0x11, number, 0x18, end, 0x25, len(data), 0x28, end)
    return struct.pack(">IH", 4 + len(sums) + len(data), len(header)) + header + sums + data


def _replies(ack: pb.Fields) -> list[int | bytes]:
    replies = ack.get(2, [])
    return [byte for reply in replies for byte in (reply if isinstance(reply, bytes) else (reply,))]


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where a message should be")
    return value


class _Answers:
    """What a DataNode sends: messages behind their lengths."""

    _LENGTH_MAX = 1 << 20

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    def next(self) -> pb.Fields:
        while True:
            try:
                length, at = pb.read_varint(self._data, 0)
            except ValueError:
                length, at = 0, len(self._data) + 1  # not whole yet
            if length > self._LENGTH_MAX:
                raise ValueError(f"an answer of {length} bytes: at most {self._LENGTH_MAX} are taken")
            if at + length <= len(self._data):
                message, self._data = self._data[at : at + length], self._data[at + length :]
                return pb.decode(message)
            more = self._connection.recv(4096)
            if not more:
                raise ConnectionResetError("a DataNode closed the connection")
            self._data += more
