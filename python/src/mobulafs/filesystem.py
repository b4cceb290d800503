"""`MobulaFileSystem`: an fsspec file system over HDFS's protocols, for pandas, pyarrow, polars, dask, zarr, torch, Ray.

Bytes go through `hdfs-native`; what that lacks goes through `namenode`. An instance holds addresses and options only,
so it pickles, survives fork and Ray's serialisation, and may be used by several threads and event loops at once.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from pathlib import PurePath
from typing import Any

import hdfs_native
from fsspec import AbstractFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.transaction import Transaction
from fsspec.utils import stringify_path, tokenize

from . import binary, connection
from .connection import translated
from .errors import BadArgument, NotSupported
from .files import Reader, Writer
from .namenode import Block, NameNode, probe

__all__ = ["MobulaFileSystem"]

#: `host:port` at the begin of what was a URL.
_AUTHORITY = re.compile(r"[^/]+:\d+(/|$)")
#: Files are copied in and out in pieces of this length.
_COPY_BYTES = 8 << 20
#: Files, or ranges of one, that are fetched at once.
_AT_ONCE = 8


class _Transaction(Transaction):  # type: ignore[misc]
    """fsspec's own, which before 2026 was left under way for good when a file could not be committed."""

    def complete(self, commit: bool = True) -> None:
        """Commits or discards the files in order; what comes behind one that cannot be committed is discarded."""
        fs = self.fs  # type: ignore[has-type]
        try:
            while self.files:
                file = self.files.popleft()
                file.commit() if commit else file.discard()
        finally:
            fs._intrans = False
            fs._transaction = None
            self.fs = None
            while self.files:
                self.files.popleft().discard()


class MobulaFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A cluster's files. `host` and `port` are the NameNode's.

    `replication` and `block_size` (bytes) are what new files get, unless `open` says otherwise; None: the server's.
    Further keyword arguments with a dot in their name are settings of `hdfs-native`.
    """

    #: pyarrow and Ray take paths with this scheme; another one they refuse.
    protocol = "hdfs"
    root_marker = "/"
    async_impl = False
    cachable = True
    transaction_type = _Transaction

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        replication: int | None = None,
        block_size: int | None = None,
        **options: Any,
    ) -> None:
        """Connects with the first call, not here."""
        super().__init__(host, port, replication=replication, block_size=block_size, **options)
        self.host = host
        self.port = int(port) if port else None
        self.replication = replication
        self.block_size = block_size
        self._options = {key: str(value) for key, value in options.items() if "." in key}
        self._namenode: NameNode | None = None

    # -- names -----------------------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        scheme, separator, rest = text.partition("://")
        if separator and "/" not in scheme:
            text = "/" + rest.partition("/")[2]
        elif _AUTHORITY.match(text):
            # pyarrow takes only the scheme away. No path of HDFS has a colon.
            text = "/" + text.partition("/")[2]
        text = "/" + text.strip("/") if text.strip("/") else "/"
        while "//" in text:
            text = text.replace("//", "/")
        return text

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        _, separator, rest = path.partition("://")
        authority = rest.partition("/")[0] if separator else ""
        host, _, port = authority.partition(":")
        found: dict[str, Any] = {"host": host} if host else {}
        if port.isdigit():
            found["port"] = int(port)
        return found

    def unstrip_protocol(self, name: str) -> str:
        """The path as a URL."""
        authority = (self.host or "") + (f":{self.port}" if self.host and self.port else "")
        return f"{self.protocol}://{authority}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        """The same for the same cluster."""
        return f"mobula_{tokenize(self.host, self.port)}"

    @property
    def client(self) -> Any:
        """The client of `hdfs-native`, this process's own. Raises NameNodeUnreachable."""
        return connection.client(self.host, self.port, self._options)

    @property
    def namenode(self) -> NameNode:
        """The calls that `hdfs-native` lacks."""
        if not self.host or not self.port:
            raise BadArgument("this needs the NameNode's host and port")
        if self._namenode is None:
            self._namenode = NameNode(self.host, self.port)
        return self._namenode

    def __reduce__(self) -> Any:
        """Only addresses and options travel."""
        return _rebuild, (type(self), self.storage_args, self.storage_options)

    # -- looking ---------------------------------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is at a path. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        with translated(path):
            return _info(self.client.get_file_info(path))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What is in a directory; a file is its own only entry. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        with translated(path):
            found = [_info(status) for status in self.client.list_status(path, False)]
        found.sort(key=lambda info: info["name"])
        return found if detail else [info["name"] for info in found]

    def exists(self, path: str, **_: Any) -> bool:
        """Whether something is there."""
        try:
            self.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """All files below a path, with one walk of the server's."""
        if maxdepth is not None:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **kwargs)
        path = self._strip_protocol(path)
        try:
            with translated(path):
                infos = [_info(status) for status in self.client.list_status(path, True)]
                if withdirs and self.isdir(path):
                    infos.append(self.info(path))
        except FileNotFoundError:
            # One directory below that vanished meanwhile ends the server's walk, and so does a path that is not there.
            infos = self._what_stays(path, withdirs)
        found = {info["name"]: info for info in infos if withdirs or info["type"] == "file"}
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _what_stays(self, path: str, withdirs: bool) -> list[dict[str, Any]]:
        """All below a path; directories that vanish while we look are left out, and only they."""
        infos: list[dict[str, Any]] = []
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            try:
                inside = self.ls(folder)
                if withdirs and folder == path and self.isdir(path):
                    infos.append(self.info(path))
            except FileNotFoundError:
                continue
            infos += inside
            waiting += [info["name"] for info in inside if info["type"] == "directory"]
        return infos

    def du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Bytes of a file, or of all below a directory."""
        if not total or maxdepth is not None:
            return super().du(path, total=total, maxdepth=maxdepth, withdirs=withdirs, **kwargs)
        path = self._strip_protocol(path)
        with translated(path):
            return self.client.get_content_summary(path).length

    def created(self, path: str) -> datetime:
        """As `modified`: HDFS keeps no time of creation."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """When the content last changed, in UTC."""
        return datetime.fromtimestamp(self.info(path)["mtime"], tz=timezone.utc)

    def checksum(self, path: str) -> str:
        """HDFS's checksum of a file's content, as `hdfs dfs -checksum` gives it: the DataNodes compute it."""
        path = self._strip_protocol(path)
        if self.isdir(path):
            raise IsADirectoryError(path)
        printed = binary.run("fs", "-fs", self.unstrip_protocol("/"), "-checksum", binary.literal(path))
        return " ".join(printed.rsplit(path, 1)[-1].split())

    def ukey(self, path: str) -> str:
        """Changes whenever the file does."""
        info = self.info(path)
        return tokenize(path, info["size"], info["modification_time"])  # type: ignore[no-any-return]

    def block_locations(self, path: str) -> list[Block]:
        """The file's blocks and where their replicas are."""
        return self.namenode.block_locations(self._strip_protocol(path))

    # -- changing --------------------------------------------------------------------------------------------------

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Makes a directory. Raises FileExistsError."""
        path = self._strip_protocol(path)
        if self.exists(path):
            raise FileExistsError(path)
        with translated(path):
            self.client.mkdirs(path, kwargs.get("permission", 0o755), create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a directory and those above it."""
        path = self._strip_protocol(path)
        if not exist_ok and self.exists(path):
            raise FileExistsError(path)
        with translated(path):
            self.client.mkdirs(path, 0o755, True)

    def rmdir(self, path: str) -> None:
        """Removes an empty directory."""
        path = self._strip_protocol(path)
        if not self.isdir(path):
            raise NotADirectoryError(path) if self.exists(path) else FileNotFoundError(path)
        self._delete(path, False)

    def rm_file(self, path: str) -> None:
        """Removes a file."""
        self._delete(self._strip_protocol(path), False)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes files, and directories with `recursive`; each whole directory in one step."""
        paths = path if isinstance(path, list) else [path]
        for one in map(self._strip_protocol, paths):
            if maxdepth is not None or _is_pattern(one):
                found = self.expand_path(one, recursive=recursive, maxdepth=maxdepth)
                for name in sorted(found, key=len, reverse=True):
                    if self.isdir(name):
                        self._delete(name, recursive)
                    elif self.exists(name):
                        self._delete(name, False)
            else:
                self._delete(one, recursive)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Renames in one step; into the directory if one is there. A file at the target is replaced."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(target) and source != target:
            target = posixpath.join(target, posixpath.basename(source))
        with translated(source):
            self.client.rename(source, target, kwargs.get("overwrite", True))

    rename = mv
    move = mv

    def replace(self, source: str, target: str) -> None:
        """Puts one file in another's place, or where nothing is; readers see the old or the new, never neither."""
        source, target = self._strip_protocol(source), self._strip_protocol(target)
        with translated(source):
            self.client.rename(source, target, True)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Makes an empty file; without `truncate` one that is there only gets the present time."""
        path = self._strip_protocol(path)
        if truncate or not self.exists(path):
            self.open(path, "wb", **kwargs).close()
        else:
            now = int(time.time() * 1000)
            with translated(path):
                self.client.set_times(path, now, now)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copies one file; it is there whole or not at all."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(source):
            self.makedirs(target, exist_ok=True)
            return
        with self.open(source, "rb") as reader:
            copy = partial(_pump, reader, piece=_COPY_BYTES)
            if self._intrans:
                self._write(target, "wb", copy)
            else:
                self._whole(target, copy)

    def set_replication(self, path: str, replication: int) -> None:
        """How many copies there shall be; the AutoHealer makes or drops them."""
        path = self._strip_protocol(path)
        with translated(path):
            self.client.set_replication(path, replication)

    def truncate(self, path: str, length: int) -> bool:
        """Cuts a file; False: the server still works on its last block. Raises NotSupported by an older server."""
        return self.namenode.truncate(self._strip_protocol(path), length)

    def concat(self, target: str, sources: Iterable[str]) -> None:
        """Moves the blocks of files to the end of another one. Raises NotSupported by an older server."""
        self.namenode.concat(self._strip_protocol(target), [self._strip_protocol(source) for source in sources])

    # -- reading and writing ---------------------------------------------------------------------------------------

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> Reader | Writer:
        path = self._strip_protocol(path)
        if mode == "rb":
            with translated(path):
                return Reader(path, self.client.read(path))
        if mode == "ab":
            if not autocommit:
                raise NotSupported(f"{path}: an append cannot be taken back, so it cannot be part of a transaction")
            return self._append(path, block_size, kwargs)
        if mode not in ("wb", "xb"):
            raise ValueError(f"mode {mode!r}: use rb, wb, xb or ab")
        exclusive = mode == "xb" or not kwargs.get("overwrite", True)
        if autocommit:
            return self._writer(path, self._create(path, not exclusive, block_size, kwargs))
        if exclusive and self.exists(path):
            raise FileExistsError(path)
        temporary = _beside(path)

        def finish(keep: bool) -> None:
            if keep:
                with translated(path):
                    self.client.rename(temporary, path, not exclusive)
            elif self.exists(temporary):
                self._delete(temporary, False)

        return self._writer(path, self._create(temporary, False, block_size, kwargs), finish=finish)

    def open(self, path: Any, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        """Opens a file. `block_size` is the new file's, in bytes; `replication` and `overwrite` are taken too."""
        if mode in ("xb", "xt", "x"):  # fsspec wraps text by itself, but only for modes that it knows
            text = {key: kwargs.pop(key) for key in ("encoding", "errors", "newline") if key in kwargs}
            autocommit = kwargs.pop("autocommit", not self._intrans)
            file = self._open(path, "xb", block_size=block_size, autocommit=autocommit, **kwargs)
            if not autocommit:
                self.transaction.files.append(file)
            return file if mode == "xb" else io.TextIOWrapper(file, **text)
        return super().open(path, mode, block_size=block_size, **kwargs)

    def _append(self, path: str, block_size: int | None, kwargs: dict[str, Any]) -> Writer:
        if not self.exists(path):
            try:
                return self._writer(path, self._create(path, False, block_size, kwargs))
            except FileExistsError:
                pass  # somebody was faster
        with translated(path):
            # Asked first: while the file is open for writing its length is not known.
            length = self.client.get_file_info(path).length
            return self._writer(path, self.client.append(path), at=length)

    def _writer(self, path: str, inner: Any, **more: Any) -> Writer:
        return Writer(path, inner, probe=self._probe, **more)

    def _probe(self) -> None:
        if self.host and self.port:
            probe(self.host, self.port)

    def _create(self, path: str, overwrite: bool, block_size: int | None, kwargs: dict[str, Any]) -> Any:
        options = hdfs_native.WriteOptions(
            overwrite=overwrite,
            block_size=block_size or self.block_size,
            replication=kwargs.get("replication") or self.replication,
            create_parent=True,
        )
        with translated(path):
            return self.client.create(path, options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A file's bytes, or those of a range; negative positions count from the end."""
        with self._open(path, "rb") as reader:
            assert isinstance(reader, Reader)
            begin, stop = _bounds(start, end, reader.size)
            return reader.read_range(begin, stop - begin)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The bytes of one file, or of many as a dict, several at once."""
        paths = self.expand_path(path, recursive=recursive)
        one = isinstance(path, (str, PurePath)) and len(paths) == 1 and paths[0] == self._strip_protocol(path)
        if one and not _is_pattern(paths[0]):
            return self.cat_file(paths[0], **kwargs)
        files = [name for name in paths if not (recursive and self.isdir(name))]
        results = self._at_once(lambda name: self.cat_file(name, **kwargs), files, on_error)
        return {
            n: r for n, r in zip(files, results, strict=True) if not (on_error == "omit" and isinstance(r, Exception))
        }

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: Any = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Ranges of files, several at once; each file is opened once."""
        if max_gap is not None:
            raise NotImplementedError("max_gap")
        starts = starts if isinstance(starts, (list, tuple)) else [starts] * len(paths)
        ends = ends if isinstance(ends, (list, tuple)) else [ends] * len(paths)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError(f"{len(paths)} paths, {len(starts)} starts and {len(ends)} ends")
        names = list(dict.fromkeys(paths))
        readers = dict(zip(names, self._at_once(lambda name: self._open(name, "rb"), names, on_error), strict=True))

        def fetch(range_: tuple[str, int | None, int | None]) -> bytes:
            reader = readers[range_[0]]
            if isinstance(reader, Exception):
                raise reader
            begin, stop = _bounds(range_[1], range_[2], reader.size)
            data: bytes = reader.read_range(begin, stop - begin)
            return data

        return self._at_once(fetch, list(zip(paths, starts, ends, strict=True)), on_error)

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Writes a whole file."""
        self._write(path, "xb" if mode == "create" else "wb", lambda writer: writer.write(value), **kwargs)

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **kw: Any
    ) -> None:
        """Stores a local file."""
        source, target = os.fspath(lpath), self._strip_protocol(rpath)
        if os.path.isdir(source):
            self.makedirs(target, exist_ok=True)
            return
        with open(source, "rb") as reader:
            callback.set_size(os.fstat(reader.fileno()).st_size)
            copy = partial(_pump, reader, piece=_COPY_BYTES, callback=callback)
            self._write(target, "xb" if mode == "create" else "wb", copy, **kw)

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **_: Any) -> None:
        """Fetches a file into a local one, or into an open one."""
        source = self._strip_protocol(rpath)
        if self.isdir(source):
            os.makedirs(lpath, exist_ok=True)
            return
        with self._open(source, "rb") as reader:
            assert isinstance(reader, Reader)
            callback.set_size(reader.size)
            if outfile is not None:
                _pump(reader, outfile, _COPY_BYTES, callback)
                return
            parent = os.path.dirname(os.fspath(lpath))
            if parent:
                os.makedirs(parent, exist_ok=True)
            with open(lpath, "wb") as writer:
                _pump(reader, writer, _COPY_BYTES, callback)

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _write(self, path: str, mode: str, write: Callable[[Writer], Any], **options: Any) -> None:
        """Writes a whole file, in a transaction if there is one: what failed half way is never committed."""
        with self.open(path, mode, **options) as writer:
            try:
                write(writer)
            except BaseException:
                writer.spoil()
                raise

    def _whole(self, path: str, write: Callable[[Writer], None]) -> None:
        temporary = _beside(path)
        try:
            with self._open(temporary, "wb") as writer:
                assert isinstance(writer, Writer)
                write(writer)
            self.replace(temporary, path)
        except BaseException:
            try:
                self._delete(temporary, False)
            except OSError:
                pass  # the first failure is the one that counts
            raise

    def _delete(self, path: str, recursive: bool) -> None:
        with translated(path):
            if not self.client.delete(path, recursive):
                raise FileNotFoundError(path)

    @staticmethod
    def _at_once(job: Callable[[Any], Any], items: list[Any], on_error: str) -> list[Any]:
        def guarded(item: Any) -> Any:
            try:
                return job(item)
            except Exception as problem:
                if on_error == "raise":
                    raise
                return problem

        if len(items) < 2:
            return [guarded(item) for item in items]
        with ThreadPoolExecutor(min(_AT_ONCE, len(items))) as pool:
            return list(pool.map(guarded, items))


def _rebuild(kind: type[MobulaFileSystem], args: tuple[Any, ...], options: dict[str, Any]) -> MobulaFileSystem:
    return kind(*args, **options)


def _info(status: Any) -> dict[str, Any]:
    return {
        "name": status.path,
        "size": status.length,
        "type": "directory" if status.isdir else "file",
        "mtime": status.modification_time / 1000,
        "permission": status.permission,
        "owner": status.owner,
        "group": status.group,
        "modification_time": status.modification_time,
        "access_time": status.access_time,
        "replication": status.replication,
        "block_size": status.blocksize,
    }


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _bounds(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    begin, stop, _ = slice(start, end).indices(size)
    return begin, max(begin, stop)


def _beside(path: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name[:200]}.{uuid.uuid4().hex[:12]}")


def _pump(reader: Any, writer: Any, piece: int, callback: Any = None) -> None:
    while data := reader.read(piece):
        writer.write(data)
        if callback is not None:
            callback.relative_update(len(data))
