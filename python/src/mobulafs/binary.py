"""Where the native program is: in the wheel's scripts folder, never wherever PATH says.

Ray's workers may lack the environment's folder in their PATH, and another `mobula` there would be of another
version. The environment variable `MOBULA_BINARY` overrides it, for those who build their own.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from .errors import BinaryNotFound, ClusterFailed

__all__ = ["find_binary", "run"]

_VARIABLE = "MOBULA_BINARY"


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


def run(*args: str | Path, stdin: bytes | None = None, timeout: float | None = None) -> str:
    """Runs `mobula ARGS` to its end; what it printed. Raises ClusterFailed with its message."""
    command = [str(find_binary()), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ClusterFailed(said)
    return done.stdout.decode(errors="replace")
