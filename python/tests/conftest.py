"""What all tests share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]


def wait_until(condition: Callable[[], Any], limit: float, what: str) -> Any:
    """Asks until the answer is true; fails after `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {limit:g} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture
def noise() -> Callable[[int, int], bytes]:
    """Bytes that differ everywhere, the same for the same seed."""
    import random

    return lambda length, seed=0: random.Random(seed).randbytes(length)
