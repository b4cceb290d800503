"""The exceptions that users of this package see. Each also is the built-in exception that fits it."""

from __future__ import annotations

__all__ = [
    "ArtifactExists",
    "ArtifactLost",
    "ArtifactNotFound",
    "BadArgument",
    "BinaryNotFound",
    "BlocksUnreachable",
    "ClusterFailed",
    "MobulaError",
    "NameNodeUnreachable",
    "NotDeployed",
    "NotSupported",
    "RayNotInitialised",
    "RemoteError",
]


class MobulaError(Exception):
    """Whatever this package raises by itself."""


class BinaryNotFound(MobulaError, FileNotFoundError):
    """The program `mobula` is not where the wheel puts it."""


class ClusterFailed(MobulaError, RuntimeError):
    """A server did not start, or ended; the message is its own."""


class NameNodeUnreachable(MobulaError, ConnectionError):
    """No NameNode answers at the address."""


class RemoteError(MobulaError, OSError):
    """An exception of the server that has no better fit here; `remote_class` is its Java name."""

    def __init__(self, remote_class: str, message: str = "") -> None:
        """Takes the class's full name, and what the server said."""
        super().__init__(remote_class, message)
        self.remote_class = remote_class
        self.message = message

    def __str__(self) -> str:
        """The last part of the class's name, and the message."""
        return f"{self.remote_class.rsplit('.', 1)[-1]}: {self.message}"


class NotSupported(MobulaError, NotImplementedError):
    """The server does not do this yet."""


class BadArgument(MobulaError, ValueError):
    """A name, length, number or kind of data that cannot be stored; the message says which may be."""


class ArtifactExists(MobulaError, FileExistsError):
    """There is an artifact of this name: `update` replaces it."""


class ArtifactNotFound(MobulaError, FileNotFoundError):
    """There is no artifact of this name."""


class BlocksUnreachable(MobulaError, OSError):
    """Of a block of a file no replica can be read now."""


class ArtifactLost(BlocksUnreachable):
    """Of a chunk of the artifact no copy can be reached now; it is back when a space that holds one is."""


class RayNotInitialised(MobulaError, RuntimeError):
    """Ray is not running in this process: call `ray.init()` first."""


class NotDeployed(MobulaError, RuntimeError):
    """No Mobula of this name runs on this Ray cluster: call `mobulafs.ray.start()` first."""
