"""Files that are open: a reader with read-ahead and random access, and a writer that gathers small writes.

Invariants: a reader never asks for bytes past the end (`hdfs-native` panics there); a writer of which a write failed
never completes its file, so that no reader takes a cut file for a whole one. Both may be used by several threads.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .connection import translated
from .errors import BlocksUnreachable, NameNodeUnreachable

__all__ = ["Reader", "Writer"]

#: Small reads fetch so much at once.
_AHEAD_BYTES = 1 << 20
#: From so much on bytes are gathered here and not in `hdfs-native`, whose own copy of them comes on top: half the CPU.
_GATHERED_BYTES_MIN = 1 << 20
#: A view is copied in pieces of this length.
_VIEW_BYTES = 8 << 20
#: Small writes are gathered up to so much.
_GATHER_BYTES = 1 << 20


class Reader(io.BufferedIOBase):
    """An open file of the cluster. Its length is the one it had when it was opened."""

    mode = "rb"

    def __init__(self, path: str, inner: Any) -> None:
        """Wraps a reader of `hdfs-native`."""
        self.path = self.name = path
        self.size = len(inner)
        self._inner = inner
        self._process = os.getpid()
        self._at = 0
        self._lock = threading.RLock()
        # Bytes that were read ahead and begin at `_at`, and the stream that goes on behind them.
        self._ahead = memoryview(b"")
        self._stream: Iterator[bytes] | None = None
        self._ended_at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Moves; what was read ahead is kept where it still fits."""
        self._check()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"whence {whence}: 0, 1 or 2")
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the file's begin")
        with self._lock:
            before = self._at
            try:
                self._move(base + offset)
            except BaseException:
                self._take_back(before)
                raise
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, fewer at the end; without a size all that are left."""
        self._check()
        with self._lock:
            left = max(self.size - self._at, 0)
            wanted = left if size is None or size < 0 else min(size, left)
            if wanted == 0:
                return b""
            before = self._at
            try:
                data = self._take(wanted)
                self._at = self._ended_at = before + wanted
            except BaseException:
                self._take_back(before)
                raise
            return data

    def read1(self, size: int = -1, /) -> bytes:
        """As `read`, but without a size some bytes and not all."""
        return self.read(size if size >= 0 else _AHEAD_BYTES)

    def readinto(self, buffer: Any, /) -> int:
        """Fills a buffer, less of it at the end."""
        target = memoryview(buffer).cast("B")
        if len(target) < _GATHERED_BYTES_MIN:
            data = self.read(len(target))
            target[: len(data)] = data
            return len(data)
        self._check()
        with self._lock:
            wanted = min(len(target), max(self.size - self._at, 0))
            if not wanted:
                return 0
            before, filled = self._at, 0

            def take(part: Any) -> None:
                nonlocal filled
                target[filled : filled + len(part)] = part
                filled += len(part)

            try:
                if self._is_jump():
                    self._range(before, wanted, take)
                else:
                    self._flow(wanted, take)
                self._at = self._ended_at = before + wanted
            except BaseException:
                self._take_back(before)
                raise
            return wanted

    readinto1 = readinto

    def read_range(self, offset: int, length: int) -> bytes:
        """Bytes from somewhere, whatever the position; fewer at the end. Several threads may do so at once."""
        self._check()
        if offset < 0 or length < 0:
            raise ValueError(f"a range from {offset} of {length} bytes")
        wanted = min(length, self.size - offset)
        if wanted <= 0:
            return b""
        if wanted < _GATHERED_BYTES_MIN:
            with translated(self.path):
                return bytes(self._inner.read_range(offset, wanted))
        target = _Gathered(wanted)
        self._range(offset, wanted, target.write)
        return target.value()

    def close(self) -> None:
        """Lets go of what was read ahead; without a lock, which a fork may have copied as it was held."""
        self._ahead, self._stream = memoryview(b""), None
        super().close()

    def __reduce__(self) -> Any:
        """Open files stay in their process."""
        raise TypeError("an open file of Mobula cannot be pickled: send the file system and the path")

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if self._process != os.getpid():
            raise OSError(f"{self.path} was opened before a fork: open it in the child, too")

    def _move(self, target: int) -> None:
        ahead = target - self._at
        if 0 <= ahead <= len(self._ahead):
            self._ahead = self._ahead[ahead:]
        elif ahead != 0:
            self._ahead, self._stream = memoryview(b""), None
        self._at = target

    def _take_back(self, before: int) -> None:
        """After an exception, which may come anywhere (Ctrl-C): what the stream gave may be lost, so it begins anew."""
        self._at = self._ended_at = before
        self._ahead, self._stream = memoryview(b""), None

    def _take(self, wanted: int) -> bytes:
        ready = len(self._ahead)
        if ready >= wanted:
            data = bytes(self._ahead[:wanted])
            self._ahead = self._ahead[wanted:]
            return data
        if self._stream is None and self._at == 0 and wanted == self.size:
            return self.read_range(0, wanted)
        if self._is_jump():
            return self._jumped(wanted)
        return self._flowing(wanted)

    def _is_jump(self) -> bool:
        """Not where the last read ended: somebody jumps about, and a stream would fetch what is not wanted."""
        return self._stream is None and self._at != self._ended_at and not self._ahead

    def _range(self, offset: int, wanted: int, take: Callable[[Any], Any]) -> None:
        """Hands on the bytes of a range, all of them."""
        have = 0
        with translated(self.path):
            for part in self._inner.read_range_stream(offset, wanted):
                take(part)
                have += len(part)
            if have != wanted:
                raise OSError(f"{self.path}: {have} bytes came of {wanted} from {offset} on")

    def _jumped(self, wanted: int) -> bytes:
        fetched = self.read_range(self._at, max(wanted, min(_AHEAD_BYTES, wanted * 8)))
        self._ahead = memoryview(fetched)[wanted:]
        return fetched if len(fetched) == wanted else fetched[:wanted]

    def _flowing(self, wanted: int) -> bytes:
        if wanted >= _GATHERED_BYTES_MIN:
            target = _Gathered(wanted)
            self._flow(wanted, target.write)
            return target.value()
        parts: list[Any] = []
        self._flow(wanted, parts.append)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def _flow(self, wanted: int, take: Callable[[Any], Any]) -> None:
        """Hands on what was read ahead, and then what the stream gives; the rest of the last part is ahead."""
        begin = self._at + len(self._ahead)
        part, self._ahead = self._ahead, memoryview(b"")
        have = 0
        with translated(self.path):
            if self._stream is None:
                self._stream = self._inner.read_range_stream(begin, self.size - begin)
            while True:
                left = wanted - have
                if len(part):
                    take(part[:left])
                    have += min(len(part), left)
                if have == wanted:
                    self._ahead = part[left:]
                    return
                given = next(self._stream, None)
                if given is None:
                    raise OSError(f"{self.path} ends at byte {self._at + have} of {self.size}")
                part = memoryview(given)


class _Gathered:
    """Bytes of a known length, put together in the place from which they are given away: no second copy is made."""

    def __init__(self, length: int) -> None:
        self._bytes = io.BytesIO()
        # To its whole length at once, which is as much as it will have.
        self._bytes.seek(length - 1)
        self._bytes.write(b"\0")
        self._bytes.seek(0)

    def write(self, part: Any) -> None:
        self._bytes.write(part)

    def value(self) -> bytes:
        return self._bytes.getvalue()


class Writer(io.BufferedIOBase):
    """A file that is being written. `close` means that every byte is synced on every replica."""

    mode = "wb"

    def __init__(
        self,
        path: str,
        inner: Any,
        finish: Callable[[bool], None] | None = None,
        at: int = 0,
        probe: Callable[[], None] | None = None,
    ) -> None:
        """Takes a writer of `hdfs-native` over.

        `finish` commits or discards a file of a transaction; `probe` raises NameNodeUnreachable if that is so.
        """
        self.path = self.name = path
        # Its Python part closes, and so completes, the file whenever it is collected, for up to 30 s wherever we are
        # then; and after a write that failed, too. So we keep what is inside.
        self._inner, inner.inner = inner.inner, _Nothing()
        self._finish = finish
        self._probe = probe
        self._gathered = bytearray()
        self._at = at
        self._failed = False
        self._process = os.getpid()
        self._lock = threading.RLock()

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes before the next one."""
        return self._at

    def write(self, data: Any, /) -> int:
        """Takes all bytes of `data`."""
        self._check_process()
        with self._lock:
            self._check()
            view = memoryview(data)
            if len(self._gathered) + view.nbytes < _GATHER_BYTES:
                self._gathered += view.tobytes()
            else:
                self._push()
                self._send(data)
            self._at += view.nbytes
            return view.nbytes

    def flush(self) -> None:
        """Hands what was gathered to the pipeline; promises nothing yet (`hsync` does)."""
        if self._inherited():
            return
        with self._lock:
            if not self.closed:
                self._push()

    def hsync(self) -> None:
        """Returns when all that was written is on the disks of every replica and readers may see it."""
        self._check_process()
        with self._lock:
            self._check()
            self._push()
            with self._guarded():
                self._inner.hsync()

    def close(self) -> None:
        """Completes the file; after a write that failed it is left as it is, never called whole.

        In the child of a fork nothing happens: the file is the parent's.
        """
        if self._inherited():
            super().close()
            return
        with self._lock:
            if self.closed:
                return
            try:
                if not self._failed:
                    self._push()
                    with self._guarded():
                        self._inner.close()
            finally:
                super().close()

    def commit(self) -> None:
        """The end of a transaction: the file takes its place. Raises OSError if it is not whole, and it goes."""
        self._check_process()
        if not self._finish:
            return
        if self._failed or not self.closed:
            what = "a write to it failed" if self._failed else "it was not closed"
            self.discard()
            raise OSError(f"{self.path} is not committed: {what}")
        try:
            self._finish(True)
        except BaseException:
            self.discard()
            raise

    def spoil(self) -> None:
        """What was written is not all that should be: a transaction shall not commit it."""
        if self._finish:
            self._failed = True

    def discard(self) -> None:
        """The end of a transaction that is taken back: the file goes."""
        if self._finish and not self._inherited():
            self._failed = True  # one that is still open is not completed any more
            self._finish(False)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        """Completes the file, as Python's own files do."""
        self.close()

    def __reduce__(self) -> Any:
        """Open files stay in their process."""
        raise TypeError("an open file of Mobula cannot be pickled: send the file system and the path")

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if self._failed:
            raise OSError(f"{self.path}: an earlier write failed, the file will not be completed")

    def _inherited(self) -> bool:
        return self._process != os.getpid()

    def _check_process(self) -> None:
        # Before any lock is taken: a fork may have copied it as another thread held it.
        if self._inherited():
            raise OSError(f"{self.path} was opened before a fork: the parent writes it, open another one in the child")

    def _push(self) -> None:
        if self._gathered and not self._failed:
            gathered, self._gathered = self._gathered, bytearray()
            self._send(gathered)

    def _send(self, data: Any) -> None:
        """Hands bytes on. `hdfs-native` takes a view one byte after the other: 20 times the time of `bytes`."""
        with self._guarded():
            if isinstance(data, (bytes, bytearray)):
                self._inner.write(data)
                return
            view = memoryview(data)
            view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
            for at in range(0, len(view), _VIEW_BYTES):
                self._inner.write(bytes(view[at : at + _VIEW_BYTES]))

    def _guarded(self) -> Any:
        return _Guard(self)


class _Nothing:
    """What is left in a writer that was taken over."""

    def close(self) -> None:
        pass


class _Guard:
    """Remembers that a writer failed."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.inner = translated(writer.path)

    def __enter__(self) -> None:
        self.inner.__enter__()

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool | None:
        if kind is not None:
            self.writer._failed = True
        try:
            return self.inner.__exit__(kind, value, trace)
        except NameNodeUnreachable:
            # A refused connection tells not whose it was: of the NameNode, or of a DataNode that has just died.
            if self.writer._probe is not None:
                self.writer._probe()
            raise BlocksUnreachable(f"{self.writer.path}: no DataNode takes a block: {value}") from value
