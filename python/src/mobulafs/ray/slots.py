"""Which folder a space takes on its machine. Knows no Ray and no process.

A volume holds `space-0`, `space-1`, ... Each has a lock that its supervisor holds as long as it lives, and a note of
the Ray node that it last served and under which number, or that it was given up: then nobody takes it any more. After
a full stop of Ray all nodes have new ids and take what is free; a supervisor that is restarted gets its own back; a new
node does not take the place of one that is only being restarted.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

__all__ = ["Slot", "take_slot"]

_SPACES_MAX = 1024


class Slot:
    """A space's folder on its first volume, locked."""

    def __init__(self, folder: Path, lock: int) -> None:
        """Made by `take_slot`."""
        self.folder = folder
        self._lock: int | None = lock

    @property
    def number(self) -> int:
        """The K of `space-K`."""
        return int(self.folder.name.rpartition("-")[2])

    def note(self, node_id: str | None, index: int | None = None) -> None:
        """Writes down whom it serves, as which space; None: nobody any more."""
        (self.folder / "owner").write_text(json.dumps({"node": node_id, "space": index}))

    def retire(self) -> None:
        """Writes down that it was given up for good."""
        (self.folder / "owner").write_text(json.dumps({"retired": True}))

    def release(self) -> None:
        """Lets others take it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def take_slot(volume: Path, node_id: str, alive_nodes: set[str], index: int | None = None) -> Slot:
    """Locks the folder that space `index` of `node_id` is to use: its own, else one whose node is gone, else a new one.

    Of several of its own it is the one that had this number, if there is one.
    """
    volume.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(found.name.rpartition("-")[2]) for found in volume.glob("space-*") if found.name[6:].isdigit())
    known = set(numbers)
    numbers = [number for number in numbers if not _noted(volume / f"space-{number}", "retired")]
    numbers.sort(key=lambda number: (_noted(volume / f"space-{number}", "space") != index, number))
    for mine in (True, False):
        for number in numbers:
            folder = volume / f"space-{number}"
            owner = _owner(folder)
            if (owner == node_id) is not mine or (not mine and owner in alive_nodes):
                continue
            slot = _lock(folder)
            # Somebody may have taken and left it between our look and our lock.
            if slot is not None and _owner(folder) == owner and not _noted(folder, "retired"):
                slot.note(node_id, index)
                return slot
            if slot is not None:
                slot.release()
    for number in range(_SPACES_MAX):
        if number in known:
            continue
        slot = _lock(volume / f"space-{number}")
        if slot is not None and _owner(slot.folder) is None:
            slot.note(node_id, index)
            return slot
        if slot is not None:
            slot.release()
    raise OSError(f"{volume} holds {_SPACES_MAX} spaces: no more fit")


def _lock(folder: Path) -> Slot | None:
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return Slot(folder, lock)


def _owner(folder: Path) -> str | None:
    owner = _noted(folder, "node")
    return owner if isinstance(owner, str) else None


def _noted(folder: Path, what: str) -> object:
    try:
        return json.loads((folder / "owner").read_text()).get(what)
    except (OSError, ValueError):
        return None
