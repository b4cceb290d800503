"""`AutoHealer`: what the NameNode notices and does about lost copies. It only looks; the NameNode heals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ..errors import NameNodeUnreachable
from .deploy import Deployment, connect, fetch

__all__ = ["AutoHealer", "Event", "Health"]

_T = TypeVar("_T")

_LOOK_PAUSE = 0.2
#: A NameNode that is started again is waited for so long by those who named no time.
_AWAY_LIMIT = 60.0
#: Spaces that a restarted NameNode has not heard of after so long are gone: it would have called them dead.
_RETURN_LIMIT = 15.0


@dataclass(frozen=True)
class Event:
    """Something the AutoHealer noticed or did."""

    number: int
    #: Milliseconds of the NameNode's clock.
    ms: int
    #: For programs: node_dead, copy_ordered, copy_verified, healed, ...
    kind: str
    #: For people.
    text: str

    def __str__(self) -> str:
        """The words for people."""
        return self.text


@dataclass(frozen=True)
class Health:
    """Counters of chunks, and of spaces by their state."""

    healed: bool
    #: Chunks that have fewer copies than they should and could have more.
    under_replicated: int
    #: Chunks that have as many copies as there are spaces, and should have more.
    limited_by_spaces: int
    #: Chunks of which no copy can be reached.
    missing: int
    pending_copies: int
    spaces_live: int
    spaces_suspect: int
    spaces_dead: int

    @property
    def whole(self) -> bool:
        """All that can be done is done, and nothing is lost."""
        return self.healed and self.missing == 0 and self.pending_copies == 0


class AutoHealer:
    """A look at the healing of a cluster."""

    def __init__(self, cluster: str | Deployment = "default") -> None:
        """Finds the cluster. Raises NotDeployed."""
        self._deployment = connect(cluster) if isinstance(cluster, str) else cluster

    def status(self) -> Health:
        """How the data is now."""
        return _health(self._deployment.health())

    def latest(self) -> int:
        """The number that the next event will have: `events(since=...)` begins there."""
        return int(self._notices(0)["last"])

    def events(self, since: int = 0, timeout: float | None = None) -> Iterator[Event]:
        """Events from number `since` on, the past ones at once, further ones as they happen; `timeout` seconds long.

        A NameNode that is started again is waited for; its numbers begin at 0, and all its events are told. Raises
        NameNodeUnreachable if it is not back by the end (without a `timeout`, a minute later).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        news = _News(since)
        while True:
            yield from self._next(news, deadline or time.monotonic() + _AWAY_LIMIT)
            if deadline is not None and time.monotonic() >= deadline:
                return
            time.sleep(_LOOK_PAUSE)

    def wait_until_healthy(
        self,
        timeout: float = 120.0,
        on_event: Callable[[Event], Any] | None = None,
        progress: Callable[[Health], Any] | None = None,
    ) -> Health:
        """Waits until every chunk has all the copies it can have. Raises TimeoutError with what is missing.

        A space that fell silent just now is waited for too, until it is back or its chunks are copied, and so is a
        NameNode that is started again.
        """
        deadline = time.monotonic() + timeout
        try:
            return self._wait_until_healthy(timeout, deadline, on_event, progress)
        except NameNodeUnreachable as problem:
            raise TimeoutError(f"not healthy within {timeout:g} s: {problem}") from problem

    def _wait_until_healthy(
        self,
        timeout: float,
        deadline: float,
        on_event: Callable[[Event], Any] | None,
        progress: Callable[[Health], Any] | None,
    ) -> Health:
        first = self._patiently(partial(self._notices, 0), deadline)
        news = _News(int(first["last"]), first["start"])
        known = _Known(first["start"])
        while True:
            found = self._patiently(self._deployment.health, deadline)
            health = _health(found)
            if progress:
                progress(health)
            if on_event:
                for event in self._next(news, deadline):
                    on_event(event)
            if known.look(found["start"], health) and health.whole and health.spaces_suspect == 0:
                return health
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"not healthy within {timeout:g} s: {health.missing} chunks lost, {health.under_replicated} want "
                    f"copies, {health.pending_copies} copies under way, {health.spaces_suspect} spaces silent"
                )
            time.sleep(_LOOK_PAUSE)

    def _next(self, news: _News, deadline: float) -> list[Event]:
        found = self._patiently(partial(self._notices, news.since), deadline)
        if news.start not in (None, found["start"]):
            # Another start, with numbers of its own: all of them are new.
            found = self._patiently(partial(self._notices, 0), deadline)
        news.since, news.start = int(found["last"]), found["start"]
        return list(_events(found))

    def _notices(self, since: int) -> dict[str, Any]:
        return fetch(self._deployment.status_url, f"/notices?since={since}")

    @staticmethod
    def _patiently(look: Callable[[], _T], deadline: float) -> _T:
        """Looks again as long as nobody answers. Raises NameNodeUnreachable at the deadline."""
        while True:
            try:
                return look()
            except NameNodeUnreachable:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_LOOK_PAUSE)


def _events(found: dict[str, Any]) -> Iterator[Event]:
    return (Event(one["seq"], one["ms"], one["kind"], one["text"]) for one in found["notices"])


def _health(found: dict[str, Any]) -> Health:
    states = [node["state"] for node in found["nodes"]]
    return Health(
        healed=bool(found["healed"]),
        under_replicated=found["under_replicated"],
        limited_by_spaces=found["limited_by_nodes"],
        missing=found["missing"],
        pending_copies=found["pending_copies"],
        spaces_live=states.count("live"),
        spaces_suspect=states.count("suspect"),
        spaces_dead=states.count("dead"),
    )


@dataclass
class _News:
    """How far events were told, and of which start of the NameNode."""

    since: int
    start: str | None = None


class _Known:
    """Whether a NameNode knows the spaces again that it knew before it was started anew."""

    def __init__(self, start: str) -> None:
        self._start = start
        self._spaces = 0
        self._until = 0.0

    def look(self, start: str, health: Health) -> bool:
        """Whether what it says of all spaces can be believed: those that were live are, or have had their time."""
        if start != self._start:
            self._start, self._until = start, time.monotonic() + _RETURN_LIMIT
        if time.monotonic() < self._until and health.spaces_live < self._spaces:
            return False
        self._spaces = health.spaces_live
        return True
