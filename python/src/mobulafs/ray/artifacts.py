"""`DataManager` and `DataSpace`: artifacts by name, kept in chunks on the spaces of a cluster.

Thin: an artifact is a file in /mobula/artifacts, and all truth is in the NameNode, so that several drivers may work on
one cluster at once. New bytes are written beside, into /mobula/incoming, and renamed into place in one step: readers
see the old artifact or the new one. What begins like a `.npy` file is an array.
"""

from __future__ import annotations

import enum
import errno
import io
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .. import binary, small
from ..errors import (
    ArtifactExists,
    ArtifactLost,
    ArtifactNotFound,
    BadArgument,
    BlocksUnreachable,
    ClusterFailed,
    MobulaError,
    RemoteError,
)
from ..files import Reader
from ..logs import logger
from ..namenode import Block, FileEntry
from .deploy import Deployment, ask, connect
from .healer import AutoHealer, Event, Health
from .table import Table

__all__ = ["ArtifactStatus", "Artifacts", "Chunk", "DataManager", "DataSpace"]

_LOG = logger(__name__)
_T = TypeVar("_T")

_ROOT = "/mobula"
_PLACE = f"{_ROOT}/artifacts"
_INCOMING = f"{_ROOT}/incoming"
#: Files from this length on go through the program, which copies faster than Python.
_BINARY_BYTES_MIN = 32 << 20
_PIECE = 8 << 20
_NAME_BYTES_MAX = 255
#: A CRC covers 512 bytes: blocks are of whole ones.
_CHUNK_UNIT = 512
#: The server takes longer blocks, but a chunk is what is copied as a whole when it is healed.
_CHUNK_LENGTH_MAX = 64 << 30
_REPLICATION_MAX = 512
_NPY_MAGIC = b"\x93NUMPY"
#: A space tells its room with each beat, once a second.
_BEATS_LIMIT = 2.5
#: A server that is gone is noticed by its broken connection, or by its missing beats after 2.5 s.
_NOTICE_LIMIT = 10.0
#: Unfinished uploads of drivers that died are removed after a day.
_INCOMING_KEPT_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Chunk:
    """A piece of an artifact and the spaces that hold a copy."""

    number: int
    length: int
    copies: int
    wanted: int
    #: Addresses of the spaces.
    spaces: tuple[str, ...]
    block_id: int


@dataclass(frozen=True)
class ArtifactStatus:
    """How an artifact is."""

    name: str
    length: int
    replication_factor: int
    chunks: tuple[Chunk, ...]

    @property
    def copies(self) -> int:
        """Of the chunk that has the fewest."""
        return min((chunk.copies for chunk in self.chunks), default=self.replication_factor)

    @property
    def healthy(self) -> bool:
        """Every chunk has all its copies."""
        return all(chunk.copies >= chunk.wanted for chunk in self.chunks)

    @property
    def lost(self) -> bool:
        """Of some chunk no copy can be reached now."""
        return any(chunk.copies == 0 for chunk in self.chunks)

    @property
    def state(self) -> str:
        """healthy, too few copies, or lost."""
        return "lost" if self.lost else "healthy" if self.healthy else "too few copies"


class Artifacts(list[ArtifactStatus]):
    """A list of artifacts that shows itself as a table."""

    def table(self) -> Table:
        """One row an artifact."""
        rows = [(a.name, a.length, len(a.chunks), f"{a.copies} of {a.replication_factor}", a.state) for a in self]
        return Table(f"{len(self)} artifacts", ("artifact", "length", "chunks", "copies", "state"), rows, {"length"})

    def __repr__(self) -> str:
        """The table."""
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


class _Full(enum.Enum):
    """Which spaces have no room for a chunk."""

    NONE, SOME, ALL = range(3)


class _SpaceFilled(OSError):
    """A space was full before the NameNode knew; others are not."""


class DataManager:
    """Stores artifacts in chunks of `chunk_length` bytes with `replication_factor` copies of each."""

    def __init__(
        self,
        chunk_length: int = 128 << 20,
        replication_factor: int = 3,
        cluster: str | Deployment = "default",
    ) -> None:
        """Finds the cluster. Raises NotDeployed, RayNotInitialised, BadArgument."""
        self.chunk_length = _checked_chunk_length(chunk_length)
        self.replication_factor = _checked_replication(replication_factor)
        self.deployment = connect(cluster) if isinstance(cluster, str) else cluster
        self._files = self.deployment.fsspec(replication=replication_factor, block_size=chunk_length)
        self._files.makedirs(_PLACE, exist_ok=True)
        self._files.makedirs(_INCOMING, exist_ok=True)
        self._sweep()

    # -- artifacts

    def add(self, name: str, data: Any) -> int:
        """Stores a new artifact; its length. Raises ArtifactExists.

        `data`: bytes and the like, a numpy array (not of objects), a path of a local file (pathlib.Path), an open
        file, or an iterator of bytes. When this returns, every byte is on the disks of all copies.
        """
        return self._store(name, data, replace=False)

    def update(self, name: str, data: Any) -> int:
        """Replaces an artifact, or adds it: readers see the old one or the new one. Its length.

        The old chunks cannot be reached from that moment on, and are off the disks within a minute.
        """
        return self._store(name, data, replace=True)

    def add_many(self, items: Iterable[tuple[str, Any]], in_flight: int = 16) -> int:
        """Adds many artifacts, so many at once; how many there were. The first failure is raised at the end.

        All others are added nevertheless. An item is taken when there is a place for it, so that `items` may be a
        generator of more than fits into memory.
        """
        count = 0
        failure: BaseException | None = None
        running: set[Future[int]] = set()

        def take(done: set[Future[int]]) -> None:
            nonlocal failure
            for future in done:
                failure = failure or future.exception()

        with ThreadPoolExecutor(in_flight, thread_name_prefix="mobulafs add") as pool:
            for item in items:
                running.add(pool.submit(lambda item: self.add(*item), item))
                count += 1
                if len(running) >= in_flight:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    take(done)
            take(wait(running).done)
        if failure is not None:
            raise failure
        return count

    def get(self, name: str, into: str | os.PathLike[str] | None = None, *, as_bytes: bool = False) -> Any:
        """The artifact: bytes, or an array if it was one (`as_bytes` gives its file); `into` a local file: its length.

        Raises ArtifactNotFound, and ArtifactLost while a chunk has no copy that can be reached.
        """
        path = self._path(name)
        with self._reading(name):
            if into is not None:
                return self._steadily(path, lambda: self._fetch(path, Path(into)))
            data = self._steadily(path, lambda: self._files.open(path, "rb").read())
        return data if as_bytes or not data.startswith(_NPY_MAGIC) else _array(data)

    def get_chunk(self, name: str, number: int) -> bytes:
        """The bytes of one chunk, from 0 on."""
        path = self._path(name)

        def read() -> bytes:
            file, blocks = self._opened(path)
            if not 0 <= number < len(blocks):
                raise BadArgument(f"{name!r} has {len(blocks)} chunks: there is no chunk {number}")
            return file.read_range(blocks[number].offset, blocks[number].length)

        with self._reading(name):
            chunk: bytes = self._steadily(path, read)
            return chunk

    def remove(self, name: str) -> None:
        """Removes an artifact. Raises ArtifactNotFound."""
        with self._reading(name):
            self._files.rm_file(self._path(name))

    def list_artifacts(self) -> list[str]:
        """All names, sorted."""
        return [info["name"].rsplit("/", 1)[-1] for info in self._files.ls(_PLACE)]

    def check_status(self, name: str | None = None) -> Any:
        """How an artifact is, or all of them: chunks, copies, where, healthy or not."""
        path = _PLACE if name is None else self._path(name)
        with self._reading(name or "all"):
            entries = self._files.namenode.listing(path)
        found = Artifacts(_status(name or entry.name, entry) for entry in entries if not entry.is_dir)
        return found if name is None else found[0]

    def heal(
        self, timeout: float = 120.0, progress: bool = False, on_event: Callable[[Event], Any] | None = None
    ) -> Health:
        """Waits until all is healed, which the cluster does by itself. Raises TimeoutError with what is missing.

        `progress` shows a bar of the chunks that want copies (with tqdm, where it is installed).
        """
        with _bar(progress) as show:
            return self.healer.wait_until_healthy(timeout, on_event=on_event, progress=show)

    @property
    def healer(self) -> AutoHealer:
        """The AutoHealer, to look at."""
        return AutoHealer(self.deployment)

    # -- spaces

    def add_space(self, node: str | None = None) -> DataSpace:
        """One more space: on the Ray node of this id, or on the node that has the fewest."""
        try:
            index = ask(lambda: self.deployment.manager().add_space.remote(node))
        except KeyError:
            raise BadArgument(f"there is no node {node!r}") from None
        space = DataSpace(self, index)
        space.wait_running()
        return space

    def list_spaces(self) -> list[DataSpace]:
        """All spaces."""
        return [DataSpace(self, told["index"]) for told in self._told_spaces()]

    def space(self, index: int) -> DataSpace:
        """The space of this number. Raises BadArgument."""
        known = [told["index"] for told in self._told_spaces()]
        if index not in known:
            raise BadArgument(f"there is no space {index}; there are {known}")
        return DataSpace(self, index)

    def kill(self, index: int, again: bool = False) -> int:
        """A real SIGKILL of a space's server, for demonstrations; its process.

        It stays down until `revive`, and the cluster knows of it when this returns; with `again` it is started again at
        once.
        """
        uuid = next((told.get("uuid") for told in self._told_spaces() if told["index"] == index), None)
        pid = ask(lambda: self._actor(index).kill.remote(index, again))
        if pid is None:
            raise BadArgument(f"space {index} does not run")
        # Or a `heal` right behind would find all well.
        deadline = time.monotonic() + _NOTICE_LIMIT
        while not again and time.monotonic() < deadline:
            nodes = self.deployment.health()["nodes"]
            if not any(node["uuid"] == uuid and node["state"] == "live" for node in nodes):
                break
            time.sleep(0.02)
        return int(pid)

    def revive(self, index: int) -> None:
        """Starts a killed space again on its disk."""
        told = ask(lambda: self._actor(index).revive.remote(index))
        if told["problem"]:
            raise ClusterFailed(told["problem"])

    def remove_space(self, index: int) -> None:
        """Ends a space for good; its chunks are healed from the others."""
        self._actor(index)
        ask(lambda: self.deployment.manager().remove_space.remote(index))

    def __repr__(self) -> str:
        """Spaces and artifacts."""
        return f"{self.spaces_table()!r}\n\n{self.check_status()!r}"

    def _repr_html_(self) -> str:
        return str(self.spaces_table()._repr_html_() + self.check_status()._repr_html_())

    def spaces_table(self) -> Table:
        """The spaces as a table."""
        from .deploy import status

        return status(self.deployment.name).table()

    def picture(self, file: str | os.PathLike[str] | None = None, title: str = "") -> Any:
        """A picture of which space holds which chunk (needs matplotlib); written into `file`, if one is given."""
        from .picture import draw

        return draw([(title or "now", self.check_status(), self.places())], file)

    def places(self) -> dict[str, int]:
        """The number of the space behind each address."""
        return {told["address"]: told["index"] for told in self._told_spaces() if told.get("address")}

    # -- helpers

    def _store(self, name: str, data: Any, replace: bool, first: str | None = None) -> int:
        """`first`: the address of the space that takes the first copy of each chunk, if it can."""
        path = self._path(name)
        whole = _whole(data, min(small.LENGTH_MAX, self.chunk_length))
        if whole is not None and self._store_small(path, whole, replace, first):
            return len(whole)
        if not replace and self._files.exists(path):
            raise ArtifactExists(f"there is an artifact {name!r}: update replaces it")
        try:
            return self._store_once(path, data, replace, first)
        except _SpaceFilled as problem:
            # The servers go around a full space, but know of it only with its next beat: there is room elsewhere.
            if not isinstance(data, (bytes, bytearray, memoryview, Path)) and not _is_array(data):
                raise OSError(errno.ENOSPC, f"a space was filled by a chunk of {name!r}: {problem}") from problem
        try:
            return self._store_once(path, data, replace, first)
        except _SpaceFilled as problem:
            raise OSError(errno.ENOSPC, f"the spaces were filled by chunks of {name!r}: {problem}") from problem

    def _store_small(self, path: str, data: bytes, replace: bool, first: str | None) -> bool:
        """Whether it went smoothly; if not, nothing was stored."""
        temporary = f"{_INCOMING}/{uuid.uuid4().hex}"
        try:
            small.store(
                self._files.namenode, temporary, path, data, self.replication_factor, self.chunk_length, replace, first
            )
        except FileExistsError:
            raise ArtifactExists(f"there is an artifact {path.rpartition('/')[2]!r}: update replaces it") from None
        except small.NotStored as problem:
            _LOG.debug("%s: stored in the usual way, since %s", path, problem)
            return False
        return True

    def _store_once(self, path: str, data: Any, replace: bool, first: str | None) -> int:
        name = path.rpartition("/")[2]
        temporary = f"{_INCOMING}/{uuid.uuid4().hex}"
        try:
            length = self._write(temporary, data, first)
            if replace:
                self._files.replace(temporary, path)
            else:
                self._files.mv(temporary, path, overwrite=False)
        except FileExistsError:
            self._discard(temporary)
            raise ArtifactExists(f"there is an artifact {name!r}: update replaces it") from None
        except BaseException as problem:
            # Looked at before what is half written goes and makes room.
            full = self._full() if _may_mean_full(problem) else _Full.NONE
            self._discard(temporary)
            if full is _Full.ALL:
                raise OSError(errno.ENOSPC, f"no space has room for a chunk of {name!r} left: {problem}") from problem
            if full is _Full.SOME:
                raise _SpaceFilled(str(problem)) from problem
            raise
        return length

    def _write(self, path: str, data: Any, first: str | None) -> int:
        if isinstance(data, Path):
            return self._put(path, data, first)
        if first:
            # hdfs-native cannot ask for a place; the program can.
            return _by_program(lambda: binary.feed(*self._put_command(first), "-", path, pieces=_pieces(data)))
        with self._files.open(path, "wb") as file:
            for piece in _pieces(data):
                file.write(piece)
            return int(file.tell())

    def _put(self, path: str, source: Path, first: str | None) -> int:
        if not source.is_file():
            raise FileNotFoundError(source)
        length = source.stat().st_size
        if length < _BINARY_BYTES_MIN and not first:
            self._files.put_file(source, path)
            return length
        _by_program(lambda: binary.run(*self._put_command(first), source, path))
        return int(self._files.size(path))

    def _put_command(self, first: str | None) -> list[str]:
        command = ["fs", "-fs", self.deployment.uri, "-D", f"dfs.replication={self.replication_factor}"]
        command += ["-D", f"dfs.blocksize={self.chunk_length}"]
        if first:
            command += ["-D", f"mobula.client.favored-nodes={first}"]
        return [*command, "-put", "-d"]

    def _steadily(self, path: str, read: Callable[[], Any]) -> Any:
        """Reads again as long as the artifact is replaced meanwhile: its old chunks are gone then."""
        seen = None
        while True:
            try:
                return read()
            except (BlocksUnreachable, ClusterFailed):
                now = self._files.namenode.listing(path)[0].file_id
                if now == seen:
                    raise
                seen = now

    def _opened(self, path: str) -> tuple[Reader, tuple[Block, ...]]:
        """The artifact, open, and its chunks: both of the same version, however often it is replaced meanwhile."""
        entry = self._files.namenode.listing(path)[0]
        while True:
            file = self._files.open(path, "rb")
            assert isinstance(file, Reader)
            before, entry = entry, self._files.namenode.listing(path)[0]
            if entry.file_id == before.file_id:
                return file, entry.blocks

    def _fetch(self, path: str, target: Path) -> int:
        info = self._files.info(path)
        # Beside the target and then into place: nobody finds half a file there.
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            if info["size"] < _BINARY_BYTES_MIN:
                self._files.get_file(path, temporary)
            else:
                binary.run("fs", "-fs", self.deployment.uri, "-get", binary.literal(path), temporary)
            length = temporary.stat().st_size
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return length

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except ArtifactNotFound:
            raise
        except FileNotFoundError:
            raise ArtifactNotFound(f"there is no artifact {name!r}") from None
        except ArtifactLost:
            raise
        except BlocksUnreachable as problem:
            raise _lost(name, problem) from problem
        except (BadArgument, PermissionError, ConnectionError, TimeoutError):
            raise
        except (OSError, MobulaError) as problem:
            # What the reader says of a dead space has many forms: where the chunks are tells what it means.
            if self._is_lost(name):
                raise _lost(name, problem) from problem
            raise

    def _is_lost(self, name: str) -> bool:
        try:
            return bool(self.check_status(name).lost)
        except (OSError, MobulaError):
            return False

    def _full(self) -> _Full:
        """Which spaces have no room for one more chunk. The servers have several words for it."""
        deadline = time.monotonic() + _BEATS_LIMIT
        while True:
            try:
                room = [node.remaining for node in self._files.namenode.nodes() if node.live]
            except (OSError, MobulaError):
                return _Full.NONE
            if room and max(room) < self.chunk_length:
                return _Full.ALL
            if not room or time.monotonic() > deadline:
                return _Full.SOME if room and min(room) < self.chunk_length else _Full.NONE
            time.sleep(0.1)

    def _discard(self, path: str) -> None:
        try:
            self._files.rm_file(path)
        except (OSError, MobulaError):
            pass  # it was never made, or is swept one day: the first failure is the one to tell

    def _sweep(self) -> None:
        limit = time.time() * 1000 - _INCOMING_KEPT_MS
        for info in self._files.ls(_INCOMING):
            if info["modification_time"] < limit:
                self._discard(info["name"])

    @staticmethod
    def _path(name: str) -> str:
        return f"{_PLACE}/{_checked_name(name)}"

    def _told_spaces(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = ask(lambda: self.deployment.manager().spaces.remote())
        return told

    def _actor(self, index: int) -> Any:
        try:
            return ask(lambda: self.deployment.manager().space.remote(index))
        except KeyError:
            raise BadArgument(f"there is no space {index}") from None


class DataSpace:
    """One space: the chunks on one server's disks. Of what it stores it takes the first copy of each chunk itself."""

    def __init__(self, manager: DataManager, index: int) -> None:
        """Made by DataManager."""
        self._manager = manager
        self.index = index

    def add(self, name: str, data: Any) -> int:
        """As DataManager.add, with a copy of every chunk here, as long as this space runs and has room."""
        return self._manager._store(name, data, replace=False, first=self.check_status()["address"])

    def update(self, name: str, data: Any) -> int:
        """As DataManager.update, with a copy of every chunk here, as long as this space runs and has room."""
        return self._manager._store(name, data, replace=True, first=self.check_status()["address"])

    def remove(self, name: str) -> None:
        """As DataManager.remove: all copies go, not only those of this space."""
        self._manager.remove(name)

    def get(self, name: str, into: str | os.PathLike[str] | None = None) -> Any:
        """As DataManager.get."""
        return self._manager.get(name, into)

    def list(self) -> dict[str, int]:
        """Names of the artifacts of which this space holds chunks, and of how many."""
        address = self.check_status()["address"]
        found = {}
        for artifact in self._manager.check_status():
            count = sum(address in chunk.spaces for chunk in artifact.chunks)
            if count:
                found[artifact.name] = count
        return found

    def check_status(self) -> dict[str, Any]:
        """Its node, address, process, log and folders, and what the NameNode sees of it: state, chunks, bytes."""
        told = next((told for told in self._manager._told_spaces() if told["index"] == self.index), None)
        if told is None:
            raise BadArgument(f"there is no space {self.index}")
        nodes = {node["uuid"]: node for node in self._manager.deployment.health()["nodes"]}
        return {**nodes.get(told.get("uuid"), {"state": "down"}), **told}

    def wait_running(self, timeout: float = 60.0) -> None:
        """Waits until it serves. Raises ClusterFailed with what holds it up."""
        deadline = time.monotonic() + timeout
        while True:
            status = self.check_status()
            if status["running"] and status["state"] == "live":
                return
            if time.monotonic() > deadline:
                raise ClusterFailed(status.get("problem") or f"space {self.index} was not ready within {timeout:g} s")
            time.sleep(0.05)

    def kill(self) -> int:
        """As DataManager.kill."""
        return self._manager.kill(self.index)

    def revive(self) -> None:
        """As DataManager.revive."""
        self._manager.revive(self.index)

    def __repr__(self) -> str:
        """Number, address and state."""
        status = self.check_status()
        return f"<DataSpace {self.index} {status.get('address')} {'killed' if status['killed'] else status['state']}>"


def _status(name: str, entry: FileEntry) -> ArtifactStatus:
    chunks = tuple(_chunk(number, block, entry) for number, block in enumerate(entry.blocks))
    return ArtifactStatus(name, entry.length, entry.replication, chunks)


def _chunk(number: int, block: Block, entry: FileEntry) -> Chunk:
    # Dead nodes are not among a block's: nobody needs to be asked who lives, which is a superuser's to ask.
    good = () if block.corrupt else block.nodes
    return Chunk(number, block.length, len(good), entry.replication, good, block.block_id)


def _by_program(job: Callable[[], _T]) -> _T:
    """What the program says in words alone, as Python's exception."""
    try:
        return job()
    except ClusterFailed as problem:
        if "Permission denied" in str(problem):
            raise PermissionError(str(problem)) from None
        raise


def _may_mean_full(problem: BaseException) -> bool:
    """Whether a server failed, and not the caller's data, rights or name."""
    if isinstance(problem, OSError) and not isinstance(problem, MobulaError):
        # What hdfs-native tells of a DataNode has no number; what Python tells has one, and mostly its own class.
        return type(problem) is OSError and problem.errno in (None, errno.ENOSPC)
    return isinstance(problem, (ClusterFailed, RemoteError, BlocksUnreachable))


def _whole(data: Any, length_max: int) -> bytes | None:
    """The bytes of an artifact, if they are at hand and at most so many."""
    if isinstance(data, Path):
        if not data.is_file() or data.stat().st_size > length_max:
            return None
        whole = data.read_bytes()
    elif isinstance(data, (bytes, bytearray, memoryview)) or _is_array(data):
        if (data if _is_array(data) else memoryview(data)).nbytes > length_max:
            return None
        whole = b"".join(bytes(piece) for piece in _pieces(data))
    else:
        return None
    return whole if len(whole) <= length_max else None


def _pieces(data: Any) -> Iterator[Any]:
    if isinstance(data, str):
        raise BadArgument("text is not stored as it is: give data.encode(), or pathlib.Path(data) for a file")
    if _is_array(data):
        yield from _npy(data)
    elif isinstance(data, (bytes, bytearray, memoryview)):
        yield data
    elif hasattr(data, "read"):
        while piece := data.read(_PIECE):
            yield _bytes_of(piece)
    elif hasattr(data, "__iter__"):
        for piece in data:
            yield _bytes_of(piece)
    else:
        raise BadArgument(
            f"{type(data).__name__} cannot be stored: give bytes, an array, a Path or an iterator of bytes"
        )


def _bytes_of(piece: Any) -> Any:
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise BadArgument(f"a piece is {type(piece).__name__}: files and iterators must give bytes")
    return piece


def _is_array(data: Any) -> bool:
    return type(data).__module__.split(".")[0] == "numpy" and hasattr(data, "dtype") and hasattr(data, "shape")


def _npy(array: Any) -> Iterator[Any]:
    import numpy

    array = numpy.asarray(array)
    if array.dtype.hasobject:
        raise BadArgument("an array of objects is not stored: it would need pickle, which runs code when it is read")
    if array.dtype.kind in "mM" or not array.flags.c_contiguous:
        array = numpy.ascontiguousarray(array).reshape(array.shape)
    head = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(head, numpy.lib.format.header_data_from_array_1_0(array))
    yield head.getvalue()
    if array.size:
        yield memoryview(array.reshape(-1).view(numpy.uint8))


def _array(data: bytes) -> Any:
    import numpy

    try:
        return numpy.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError):
        return data  # it only begins like one


def _lost(name: str, problem: BaseException) -> ArtifactLost:
    return ArtifactLost(
        f"of the artifact {name!r} a chunk has no copy that can be reached; it is back when a space that holds one is: "
        f"{problem}"
    )


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise BadArgument("an artifact needs a name")
    if name in (".", "..") or any(sign in "/:" or ord(sign) < 32 or ord(sign) == 127 for sign in name):
        raise BadArgument(
            f"{name!r} is no name for an artifact: it has '/', ':' or control characters, or is '.' or '..'"
        )
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise BadArgument(f"{name!r} is no text that UTF-8 can write") from None
    if length > _NAME_BYTES_MAX:
        raise BadArgument(f"a name has at most {_NAME_BYTES_MAX} bytes of UTF-8, this one {length}")
    return name


def _checked_chunk_length(length: int) -> int:
    if not _CHUNK_UNIT <= length <= _CHUNK_LENGTH_MAX or length % _CHUNK_UNIT:
        raise BadArgument(
            f"chunk_length is {length}: it must be a multiple of {_CHUNK_UNIT} up to {_CHUNK_LENGTH_MAX} bytes (64 GiB)"
        )
    return length


def _checked_replication(factor: int) -> int:
    if not 1 <= factor <= _REPLICATION_MAX:
        raise BadArgument(f"replication_factor is {factor}: it must be from 1 to {_REPLICATION_MAX}")
    return factor


@contextmanager
def _bar(wanted: bool) -> Iterator[Callable[[Health], Any] | None]:
    if not wanted:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield lambda health: _LOG.info("%d chunks want copies", health.under_replicated)
        return
    with tqdm(total=0, unit="chunk", desc="healing") as bar:

        def show(health: Health) -> None:
            waiting = health.under_replicated + health.missing
            bar.total = max(bar.total, waiting)
            bar.n = bar.total - waiting
            bar.set_postfix(lost=health.missing, silent=health.spaces_suspect)
            bar.refresh()

        yield show
