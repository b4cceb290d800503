"""The calls of HDFS's ClientProtocol that `hdfs-native` lacks, or that `small` makes itself to save some.

Hadoop RPC version 9, SIMPLE authentication, one call at a time on a connection and as many connections as there are
calls at once. A call is repeated only if it may be, or under its first number, by which the NameNode knows it again.
Safe across threads and forks: a child makes connections of its own.
"""

from __future__ import annotations

import errno
import functools
import getpass
import itertools
import os
import re
import socket
import struct
import time
import uuid
import weakref
from dataclasses import dataclass

from . import protobuf as pb
from .errors import NameNodeUnreachable, NotSupported, RemoteError

__all__ = ["Block", "FileEntry", "NameNode", "Node", "Stats", "path_exception", "probe", "remote_exception"]

_PROTOCOL = "org.apache.hadoop.hdfs.protocol.ClientProtocol"
_STATUS_ERROR = 1  # RpcStatusProto
_CALL_CONTEXT = -3  # the call id under which a connection says who it is
_ANSWER_BYTES_MAX = 128 << 20  # HDFS: ipc.maximum.response.length
_CONNECT_LIMIT = 2.0
_CALL_LIMIT = 60.0
_PROBE_PAUSE = 0.1
#: Connections that are kept while nobody calls.
_IDLE_MAX = 16
#: An answer is mostly shorter, and then read at once.
_ANSWER_BYTES = 8 << 10
#: So long a call is repeated whose first answer was lost, with such pauses between.
_REPEAT_LIMIT = 30.0
_REPEAT_PAUSE = 0.2
#: What Mobula's NameNode takes and answers beyond HDFS's fields; others skip fields that they do not know.
#: See crates/wire/src/extension.rs.
_FIRST_BLOCK = 5001
_TARGET, _OVERWRITE = 5001, 5002
_RENAMED = 5001
_CREATE, _CREATE_PARENT = 1, 1  # CreateFlagProto.CREATE
_FILE_MODE = 0o644
_ENCRYPTION, _STRIPES = 15, 17  # HdfsFileStatusProto: fileEncryptionInfo, ecPolicy
#: What the server says where a file is wanted and a directory is there.
_DIRECTORY = re.compile(r"(^|: )(Path is not a file: |Cannot append to directory )")
#: What it says of a file that is open for writing. Of one that shall be made it means: it is there.
_BEING_WRITTEN = re.compile(r"(^|: )Failed to (?!CREATE_FILE)[A-Z_]+ .* because .*(lease|created|recover)")


#: What ours says of itself when it is asked while it stops.
_STOPS = "the NameNode stops"


@dataclass(frozen=True)
class Block:
    """A block of a file, in the Python API's words a chunk."""

    offset: int
    length: int
    block_id: int
    generation_stamp: int
    #: `ip:port` of the DataNodes that hold a replica.
    nodes: tuple[str, ...]
    #: Names of their hosts, as they give them.
    hosts: tuple[str, ...]
    #: Identities of the DataNodes.
    uuids: tuple[str, ...]
    #: No good replica is known.
    corrupt: bool


@dataclass(frozen=True)
class FileEntry:
    """An entry of a directory, with its blocks if it is a file."""

    name: str
    is_dir: bool
    length: int
    replication: int
    block_size: int
    modification_time: int
    file_id: int
    under_construction: bool
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Node:
    """A DataNode as the NameNode sees it; lengths in bytes."""

    uuid: str
    address: str
    host: str
    capacity: int
    used: int
    remaining: int
    blocks: int
    live: bool


@dataclass(frozen=True)
class Stats:
    """The cluster's counters; lengths in bytes."""

    capacity: int
    used: int
    remaining: int
    under_replicated: int
    corrupt: int
    missing: int


#: Those of this process.
_all: weakref.WeakSet[NameNode] = weakref.WeakSet()


def _after_fork() -> None:
    # The connections are the parent's. And the NameNode answers a call once: by an identity that parent and child
    # share, it would take the calls of one for those of the other.
    for one in list(_all):
        one._begin()


os.register_at_fork(after_in_child=_after_fork)


def probe(host: str, port: int, limit: float = _CONNECT_LIMIT) -> None:
    """Returns as soon as somebody listens there. Raises NameNodeUnreachable after `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=max(left, 0.05)):
                return
        except OSError as problem:
            if time.monotonic() + _PROBE_PAUSE >= deadline:
                raise NameNodeUnreachable(
                    f"no NameNode answers at hdfs://{host}:{port} within {limit:g} s: {problem}"
                ) from problem
        time.sleep(_PROBE_PAUSE)


def user_name() -> str:
    """As whom we act: HADOOP_USER_NAME, else the operating system's name for us."""
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()


class NameNode:
    """Calls to one NameNode."""

    def __init__(self, host: str, port: int) -> None:
        """Connects with the first call, not here."""
        self.host = host
        self.port = port
        _all.add(self)
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        #: Connections on which nobody waits for an answer. Taken and given back in one step, so without a lock.
        self._idle: list[socket.socket] = []
        self._calls = itertools.count(1)
        self._client_id = uuid.uuid4().bytes

    def __reduce__(self) -> tuple[type[NameNode], tuple[str, int]]:
        """Only the address travels."""
        return NameNode, (self.host, self.port)

    def block_locations(self, path: str) -> list[Block]:
        """All blocks of a file and where their replicas are. Raises FileNotFoundError."""
        request = pb.encode([(1, path), (2, 0), (3, (1 << 63) - 1)])
        answer = self._call("getBlockLocations", request)
        if 1 not in answer:
            raise FileNotFoundError(path)
        return list(_blocks(pb.message(answer, 1)))

    def listing(self, path: str) -> list[FileEntry]:
        """What is in a directory, with all locations; a file is its own only entry. Raises FileNotFoundError."""
        entries: list[FileEntry] = []
        after = b""
        while True:
            answer = self._call("getListing", pb.encode([(1, path), (2, after), (3, 1)]))
            if 1 not in answer:
                raise FileNotFoundError(path)
            page = pb.message(answer, 1)
            statuses = pb.messages(page, 1)
            entries.extend(_entry(status) for status in statuses)
            if not statuses or pb.number(page, 2) == 0:
                return entries
            after = pb.raw(statuses[-1], 2)

    def nodes(self) -> list[Node]:
        """All DataNodes, the dead too.

        Raises PermissionError for who is no superuser, as HDFS does; `stats` is for everybody.
        """
        live, dead = 2, 3  # DatanodeReportTypeProto
        found = []
        for kind in (live, dead):
            answer = self._call("getDatanodeReport", pb.encode([(1, kind)]))
            found += [_node(info, kind == live) for info in pb.messages(answer, 1)]
        return found

    def stats(self) -> Stats:
        """Counters of room and of blocks that want replicas."""
        f = self._call("getFsStats", b"")
        return Stats(*(pb.number(f, field) for field in range(1, 7)))

    def truncate(self, path: str, length: int) -> bool:
        """Cuts a file; False: the NameNode still works on its last block."""
        client = f"mobulafs-{uuid.uuid4()}"
        answer = self._call("truncate", pb.encode([(1, path), (2, length), (3, client)]), repeat=False)
        return bool(pb.number(answer, 1))

    def concat(self, target: str, sources: list[str]) -> None:
        """Moves the blocks of `sources` to the end of `target`."""
        fields: list[tuple[int, int | str | bytes]] = [(1, target)]
        fields += [(2, source) for source in sources]
        self._call("concat", pb.encode(fields), repeat=False)

    # -- what `small` writes files with ----------------------------------------------------------------------------

    @property
    def holder(self) -> str:
        """The name under which this process holds the leases of files that it writes."""
        self._own()
        return f"mobulafs-{self._client_id.hex()}"

    def create(self, path: str, replication: int, block_size: int, first_block: bool) -> tuple[int, pb.Fields | None]:
        """Makes a file to be written; its id, and its first block if that was wished and the server knows the wish.

        Raises NotSupported for a file that is made all the same, but whose blocks are striped or encrypted.
        """
        fields: list[tuple[int, int | str | bytes]] = [(1, path), (2, pb.encode([(1, _FILE_MODE)])), (3, self.holder)]
        fields += [(4, _CREATE), (5, _CREATE_PARENT), (6, replication), (7, block_size)]
        if first_block:
            fields.append((_FIRST_BLOCK, 1))
        answer = self._once("create", pb.encode(fields))
        status = pb.message(answer, 1) if 1 in answer else {}
        if _ENCRYPTION in status or _STRIPES in status:
            raise NotSupported(f"{path}: encrypted, or in an erasure code's stripes")
        return pb.number(status, 13), (pb.message(answer, _FIRST_BLOCK) if _FIRST_BLOCK in answer else None)

    def add_block(self, path: str, file: int, favored: str | None = None) -> pb.Fields:
        """The first block of a file, and where it goes: to `favored` (`ip:port`) first, if that is possible."""
        fields: list[tuple[int, int | str | bytes]] = [(1, path), (2, self.holder), (5, file)]
        if favored:
            fields.append((6, favored))
        return pb.message(self._call("addBlock", pb.encode(fields)), 1)

    def complete(self, path: str, file: int, last: bytes | None, target: str, overwrite: bool) -> tuple[bool, bool]:
        """Closes a file and gives it the name `target`: whether it is closed, and whether it has that name already.

        It is not closed yet if no DataNode has reported its last block. Only Mobula's NameNode gives a name with it.
        """
        fields: list[tuple[int, int | str | bytes]] = [(1, path), (2, self.holder)]
        if last is not None:
            fields.append((3, last))
        fields += [(4, file), (_TARGET, target), (_OVERWRITE, int(overwrite))]
        answer = self._once("complete", pb.encode(fields))
        return bool(pb.number(answer, 1)), bool(pb.number(answer, _RENAMED))

    def rename(self, source: str, target: str, overwrite: bool) -> None:
        """Gives a file another name. Raises FileExistsError."""
        self._once("rename2", pb.encode([(1, source), (2, target), (3, int(overwrite)), (4, 0)]))

    def delete(self, path: str) -> bool:
        """Removes a file; whether it was there."""
        return bool(pb.number(self._once("delete", pb.encode([(1, path), (2, 0)])), 1))

    def file_at(self, path: str) -> int:
        """The id of the file of that name; 0: there is none."""
        answer = self._call("getFileInfo", pb.encode([(1, path)]))
        return pb.number(pb.message(answer, 1), 13) if 1 in answer else 0

    # -- how calls are made ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes the connections that are idle; the next call makes a new one."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _own(self) -> None:
        """Before anything is numbered or signed: a fork past Python's hooks has its parent's identity until here."""
        if self._owner != os.getpid():
            self._begin()

    def _call(self, method: str, request: bytes, repeat: bool = True) -> pb.Fields:
        self._own()
        try:
            return self._exchange(method, request, next(self._calls))
        except _Lost:
            if not repeat:
                raise
        # The connection was an old one: a NameNode that restarted, or an idle one that was closed.
        return self._exchange(method, request, next(self._calls))

    def _once(self, method: str, request: bytes) -> pb.Fields:
        """A call that happens once however often it is sent: the NameNode knows its number again.

        Raises NameNodeUnreachable if nobody can tell whether it happened; whatever else the server said is a no.
        """
        self._own()
        call = next(self._calls)
        deadline = 0.0
        for attempt in itertools.count():
            try:
                return self._exchange(method, request, call, attempt)
            except _Lost as problem:
                lost: Exception = problem
            except NameNodeUnreachable as problem:
                if attempt == 0:
                    raise  # nothing was sent
                lost = problem
            except RemoteError as problem:
                if not _leaves_open(problem, attempt):
                    raise
                lost = problem
            # From the first loss: it is asked again once at least, however long that took.
            if attempt == 0:
                deadline = time.monotonic() + _REPEAT_LIMIT
                continue
            if time.monotonic() > deadline:
                where = f"hdfs://{self.host}:{self.port}"
                raise NameNodeUnreachable(f"the NameNode at {where} was lost during {method}: {lost}") from lost
            time.sleep(_REPEAT_PAUSE)
        raise AssertionError("the loop returns or raises")

    def _exchange(self, method: str, request: bytes, call: int, attempt: int = 0) -> pb.Fields:
        """Raises _Lost, RemoteError and what else the server said."""
        connection = self._connect()
        try:
            connection.sendall(_frame(self._header(call, attempt), _named(method), request))
            data = _read_frame(connection)
            length, at = pb.read_varint(data, 0)
            answered = pb.decode(data[at : at + length])
            if pb.number(answered, 1) != call & 0xFFFFFFFF:
                raise ValueError(f"call {call} was answered as {pb.number(answered, 1)}")
        except (OSError, ValueError) as problem:
            connection.close()
            # What is idle is as old, or older.
            self.close()
            raise _Lost(str(problem)) from problem
        except BaseException:
            connection.close()  # Ctrl-C: the answer would be taken for the next call's
            raise
        # A fatal answer is the last one.
        if pb.number(answered, 2) > _STATUS_ERROR or len(self._idle) >= _IDLE_MAX:
            connection.close()
        else:
            self._idle.append(connection)
        if pb.number(answered, 2) != 0:
            raise remote_exception(pb.text(answered, 4), pb.text(answered, 5))
        at += length
        length, at = pb.read_varint(data, at)
        return pb.decode(data[at : at + length])

    def _header(self, call: int, attempt: int) -> bytes:
        # Fields 1 (engine), 2 (operation), 3 (call), 4 (client) and 5 (attempt).
        number, again = pb.varint(pb.zigzag(call)), pb.varint(pb.zigzag(attempt))
        return b"".join((b"\x08\x02\x10\x00\x18", number, b"\x22\x10", self._client_id, b"\x28", again))

    def _connect(self) -> socket.socket:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            connection = socket.create_connection((self.host, self.port), timeout=_CONNECT_LIMIT)
        except OSError as problem:
            where = f"hdfs://{self.host}:{self.port}"
            raise NameNodeUnreachable(f"no NameNode answers at {where}: {problem}") from problem
        connection.settimeout(_CALL_LIMIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        who = pb.encode([(2, pb.encode([(1, user_name())])), (3, _PROTOCOL)])
        try:
            # Magic, version 9, service class 0, authentication SIMPLE.
            connection.sendall(b"hrpc\x09\x00\x00" + _frame(self._header(_CALL_CONTEXT, 0), who))
        except OSError as problem:
            connection.close()
            raise _Lost(str(problem)) from problem
        return connection


class _Lost(ConnectionError):
    """The connection ended before the answer came."""


def _leaves_open(problem: RemoteError, attempt: int) -> bool:
    """Whether a refusal leaves it open if the call happened: it speaks of this sending, and not of those before.

    A leader that is deposed, and a server that stops, say so of calls that stand in their logs already.
    """
    name = problem.remote_class.rsplit(".", 1)[-1]
    if name == "StandbyException" or _STOPS in problem.message:
        return True
    return attempt > 0 and name in ("RetriableException", "SafeModeException")


@functools.lru_cache(maxsize=64)
def _named(method: str) -> bytes:
    return pb.encode([(1, method), (2, _PROTOCOL), (3, 1)])


def _frame(*messages: bytes) -> bytes:
    body = b"".join(pb.delimited(message) for message in messages)
    return struct.pack(">I", len(body)) + body


def _read_frame(connection: socket.socket) -> bytes:
    """The one answer that is on its way."""
    data = connection.recv(_ANSWER_BYTES)
    if len(data) < 4:
        if not data:
            raise ConnectionResetError("the NameNode closed the connection")
        data += _read(connection, 4 - len(data))
    (length,) = struct.unpack_from(">I", data)
    if length > _ANSWER_BYTES_MAX:
        raise ValueError(f"an answer of {length} bytes: at most {_ANSWER_BYTES_MAX} are taken")
    missing = 4 + length - len(data)
    return data[4:] + _read(connection, missing) if missing > 0 else data[4:]


def _read(connection: socket.socket, length: int) -> bytes:
    out = bytearray()
    while len(out) < length:
        part = connection.recv(min(length - len(out), 1 << 20))
        if not part:
            raise ConnectionResetError("the NameNode closed the connection")
        out += part
    return bytes(out)


def _entry(status: pb.Fields) -> FileEntry:
    located = pb.messages(status, 12)
    return FileEntry(
        name=pb.text(status, 2),
        is_dir=pb.number(status, 1) == 1,
        length=pb.number(status, 3),
        replication=pb.number(status, 10),
        block_size=pb.number(status, 11),
        modification_time=pb.number(status, 7),
        file_id=pb.number(status, 13),
        under_construction=bool(located) and bool(pb.number(located[0], 3)),
        blocks=_blocks(located[0]) if located else (),
    )


def _blocks(located: pb.Fields) -> tuple[Block, ...]:
    return tuple(_block(block) for block in pb.messages(located, 2))


def _block(located: pb.Fields) -> Block:
    block = pb.message(located, 1)
    ids = [pb.message(info, 1) for info in pb.messages(located, 3)]
    return Block(
        offset=pb.number(located, 2),
        length=pb.number(block, 4),
        block_id=pb.number(block, 2),
        generation_stamp=pb.number(block, 3),
        nodes=tuple(f"{pb.text(node, 1)}:{pb.number(node, 4)}" for node in ids),
        hosts=tuple(pb.text(node, 2) for node in ids),
        uuids=tuple(pb.text(node, 3) for node in ids),
        corrupt=bool(pb.number(located, 4)),
    )


def _node(info: pb.Fields, live: bool) -> Node:
    node = pb.message(info, 1)
    return Node(
        uuid=pb.text(node, 3),
        address=f"{pb.text(node, 1)}:{pb.number(node, 4)}",
        host=pb.text(node, 2),
        capacity=pb.number(info, 2),
        used=pb.number(info, 3),
        remaining=pb.number(info, 4),
        blocks=pb.number(info, 17),
        live=live,
    )


def path_exception(kind: type[OSError], said: str) -> OSError:
    """The exception for a path that is not there, or is; unless the words tell something else of it."""
    if _DIRECTORY.search(said):
        return IsADirectoryError(said)
    if _BEING_WRITTEN.search(said):
        return OSError(errno.EBUSY, f"it is being written: {said}")
    return kind(said)


def remote_exception(remote_class: str, message: str) -> Exception:
    """The server's exception as one of Python's, by the last part of its class's name."""
    name = remote_class.rsplit(".", 1)[-1]
    first = message.splitlines()[0] if message else ""
    if name == "FileNotFoundException":
        return path_exception(FileNotFoundError, first)
    if name in ("FileAlreadyExistsException", "AlreadyBeingCreatedException", "RecoveryInProgressException"):
        return path_exception(FileExistsError, first)
    if name == "AccessControlException":
        return PermissionError(first)
    if name == "PathIsNotEmptyDirectoryException":
        return OSError(errno.ENOTEMPTY, first)
    if name in ("ParentNotDirectoryException", "PathIsNotDirectoryException"):
        return NotADirectoryError(first)
    if name == "InvalidPathException":
        return ValueError(first)
    if "could only be written to 0 of" in first:
        # HDFS says it of every block for which no DataNode could be chosen: full ones, or none at all.
        return OSError(errno.ENOSPC, f"no space left: {first}")
    if name in ("UnsupportedOperationException", "RpcNoSuchMethodException"):
        return NotSupported(first)
    return RemoteError(remote_class, first)
