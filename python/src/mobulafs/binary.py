"""Where the native program is: in the wheel's scripts folder, never wherever PATH says.

Ray's workers may lack the environment's folder in their PATH, and another `mobula` there would be of another
version. The environment variable `MOBULA_BINARY` overrides it, for those who build their own.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import BinaryNotFound, ClusterFailed

__all__ = ["feed", "find_binary", "literal", "run"]

_VARIABLE = "MOBULA_BINARY"
_PATTERN_SIGNS = re.compile(r"([\\*?\[\]{}])")


def find_binary() -> Path:
    """The program's path. Raises BinaryNotFound with all places that were looked at."""
    override = os.environ.get(_VARIABLE)
    if override:
        if os.access(override, os.X_OK):
            return Path(override)
        raise BinaryNotFound(f"{_VARIABLE} is {override}, which is no program")
    places = list(dict.fromkeys(_places()))
    for place in places:
        if os.access(place, os.X_OK):
            return place
    looked = ", ".join(str(place) for place in places)
    raise BinaryNotFound(
        f"the program mobula is not at {looked}: install the wheel again, or set {_VARIABLE} to its path"
    )


def _places() -> Iterator[Path]:
    yield Path(sysconfig.get_path("scripts")) / "mobula"
    # Installed with --user, --target or a prefix: the wheel's own record knows.
    try:
        files = importlib.metadata.distribution("mobulafs").files or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "mobula" and file.parent.name == "bin":
            yield Path(str(file.locate())).resolve()


def literal(path: str) -> str:
    """A path of the cluster as an argument that stands for itself, whatever signs of patterns it has."""
    return _PATTERN_SIGNS.sub(r"\\\1", path)


def run(*args: str | Path, stdin: bytes | None = None, timeout: float | None = None) -> str:
    """Runs `mobula ARGS` to its end; what it printed. Raises ClusterFailed with its message."""
    command = [str(find_binary()), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ClusterFailed(said)
    return done.stdout.decode(errors="replace")


def feed(*args: str | Path, pieces: Iterable[Any]) -> int:
    """Runs `mobula ARGS` with these bytes as its input; how many there were. Raises ClusterFailed with its message."""
    command = [str(find_binary()), *map(str, args)]
    length = 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
        assert process.stdin
        try:
            for piece in pieces:
                process.stdin.write(piece)
                length += memoryview(piece).nbytes
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended before it had read all, and says why
        except BaseException:
            # Killed first: it would take the end of its input for the end of the file.
            process.kill()
            process.wait()
            raise
        finally:
            process.wait()
        if process.returncode != 0:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
            raise ClusterFailed(text or f"exit code {process.returncode}")
    return length
