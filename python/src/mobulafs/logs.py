"""One tree of loggers, `mobulafs`: quiet by default, louder by an argument or by MOBULAFS_LOG.

`configure("info")` or the environment variable `MOBULAFS_LOG=debug` shows it on standard error. Programs that
configure `logging` themselves need neither: the records go to their handlers.
"""

from __future__ import annotations

import logging
import os

__all__ = ["configure", "logger"]

_VARIABLE = "MOBULAFS_LOG"
_ROOT = "mobulafs"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logging.getLogger(_ROOT).addHandler(logging.NullHandler())


def logger(name: str) -> logging.Logger:
    """The logger of a module of this package, from its `__name__`."""
    return logging.getLogger(name)


def configure(level: str | int | None = None) -> None:
    """Shows what this package logs from `level` on; without one, from what MOBULAFS_LOG says, if it is set."""
    level = level if level is not None else os.environ.get(_VARIABLE)
    if not level:
        return
    root = logging.getLogger(_ROOT)
    if isinstance(level, str):
        number = logging.getLevelName(level.upper())
        if not isinstance(number, int):
            raise ValueError(f"log level {level!r}: use debug, info, warning, error or critical")
        level = number
    root.setLevel(level)
    if not any(type(handler) is logging.StreamHandler for handler in root.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(handler)


configure()
