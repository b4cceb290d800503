"""How many spaces a node has more, or fewer, than `start` said. Knows no Ray.

Kept in a file beside the NameNode's, so that what was added and removed outlives the manager, and a full stop of Ray:
nodes have new ids then, and are known by their addresses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

from ..logs import logger

__all__ = ["Changes"]

_LOG = logger(__name__)


class Changes:
    """What `add_space` and `remove_space` changed."""

    def __init__(self, file: Path) -> None:
        """Reads what an earlier manager wrote, if there is something."""
        self._file = file
        #: Each: the node's last id, its address, how many more.
        self._records: list[tuple[str, str, int]] = []
        if file.exists():
            try:
                kept = json.loads(file.read_text())
                self._records = [(str(node_id), str(address), int(more)) for node_id, address, more in kept]
            except (TypeError, ValueError) as problem:
                _LOG.warning("%s cannot be read, so no node has more spaces, or fewer, than usual: %s", file, problem)

    def of(self, node_id: str, address: str, alive: Collection[str]) -> int:
        """How many more; a node that is new takes the place of one of its address that is not alive any more."""
        return self._records[self._place(node_id, address, alive)][2]

    def add(self, node_id: str, address: str, more: int, alive: Collection[str]) -> None:
        """So many more than until now."""
        place = self._place(node_id, address, alive)
        known, at, before = self._records[place]
        self._records[place] = (known, at, before + more)
        self._write()

    def _place(self, node_id: str, address: str, alive: Collection[str]) -> int:
        for place, (known, *_) in enumerate(self._records):
            if known == node_id:
                return place
        for place, (known, at, more) in enumerate(self._records):
            if at == address and known not in alive:
                self._records[place] = (node_id, address, more)
                self._write()
                return place
        # Noted although nothing changed: a node that is known takes nobody's place later.
        self._records.append((node_id, address, 0))
        self._write()
        return len(self._records) - 1

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(".new")
        with beside.open("w") as out:
            json.dump(self._records, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, self._file)
