"""`start`, `status`, `stop` and `filesystem`: Mobula on a running Ray cluster, by name from any of its workers."""

from __future__ import annotations

import atexit
import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..errors import BadArgument, ClusterFailed, NameNodeUnreachable, NotDeployed, RayNotInitialised
from ..filesystem import MobulaFileSystem
from ..logs import configure, logger
from .actors import NAMESPACE, Manager, Settings, launch_host, manager_name
from .table import Table

__all__ = ["Deployment", "Status", "connect", "filesystem", "start", "status", "stop"]

_LOG = logger(__name__)
_T = TypeVar("_T")

#: A cluster that is not ready after this many seconds is reported with what holds it up.
_READY_LIMIT = 60.0
#: An actor that is being restarted is waited for so long.
_RESTART_LIMIT = 60.0
#: Variables that the actors' processes get from the driver that starts them.
_PASSED_ON = ("MOBULA_BINARY", "MOBULAFS_LOG", "HADOOP_USER_NAME")

SINGLE_NAMENODE = (
    "one NameNode, on {ip}: if that node is lost for good, so is the list of files. Keep its folder where it is safe"
)
TRUST = (
    "there is no authentication yet: whoever can reach these ports can read, change and delete everything. "
    "trust_network=True says that everyone on the nodes' network may"
)

#: The actors of clusters that end with this driver: Ray ends them when nobody holds them.
_held: dict[str, Any] = {}
#: Those of them that this driver started, and so ends.
_ours: set[str] = set()


@dataclass(frozen=True)
class Deployment:
    """A running cluster, as `start` and `connect` hand it out. It pickles: give it to tasks."""

    name: str
    host: str
    port: int
    #: The status page, `http://host:port`.
    status_url: str

    @property
    def uri(self) -> str:
        """`hdfs://host:port`."""
        return f"hdfs://{self.host}:{self.port}"

    def fsspec(self, **options: Any) -> MobulaFileSystem:
        """Its files, for whatever takes fsspec."""
        return MobulaFileSystem(self.host, self.port, **options)

    def health(self) -> dict[str, Any]:
        """What the NameNode says of nodes and blocks."""
        return fetch(self.status_url, "/health")

    def manager(self) -> Any:
        """The supervising actor."""
        return _manager(self.name)


@dataclass(frozen=True)
class Status:
    """Who runs where, with which logs, and how the data is. It shows itself as a table."""

    name: str
    uri: str
    namenode: dict[str, Any]
    spaces: list[dict[str, Any]]
    health: dict[str, Any]
    warnings: list[str]

    @property
    def healed(self) -> bool:
        """Every chunk has all the copies it can have."""
        return bool(self.health.get("healed"))

    @property
    def logs(self) -> dict[str, str]:
        """The servers' log files, each on its own node; older ones beside it as `log.1`, `log.2`, ..."""
        found = {f"namenode on {self.namenode['node_ip']}": str(self.namenode["log"])}
        for space in self.spaces:
            if space.get("log"):
                found[f"space {space['index']} on {space['node_ip']}"] = str(space["log"])
        return found

    def table(self) -> Table:
        """The spaces."""
        rows = []
        for space in self.spaces:
            seen = space.get("seen") or {}
            state = "killed" if space.get("killed") else seen.get("state", "starting" if space["running"] else "down")
            used, capacity = seen.get("used"), seen.get("capacity")
            rows.append(
                (space["index"], space.get("node_ip"), space.get("address"), state, seen.get("blocks"), used, capacity)
            )
        columns = ("space", "node", "address", "state", "chunks", "used", "capacity")
        return Table(f"{self.name} {self.uri}: {self._word()}", columns, rows, {"used", "capacity"})

    def _word(self) -> str:
        h = self.health
        if h.get("missing"):
            return f"{h['missing']} chunks lost"
        return "healthy" if self.healed else f"{h.get('under_replicated', '?')} chunks want copies"

    def __repr__(self) -> str:
        """The table, and what one should know."""
        return "\n".join([repr(self.table()), *(f"note: {warning}" for warning in self.warnings)])

    def _repr_html_(self) -> str:
        return self.table()._repr_html_() + "".join(f"<p>note: {warning}</p>" for warning in self.warnings)


def start(
    name: str = "default",
    *,
    volumes: str | os.PathLike[str] | list[str | os.PathLike[str]] | None = None,
    namenode_dir: str | os.PathLike[str] | None = None,
    namenode_node: str | None = None,
    capacity: int | str | None = None,
    spaces_per_node: int = 1,
    replication: int = 3,
    block_size: int | str = "128m",
    dead_after: float = 10.0,
    claim_limit: float = 60.0,
    detached: bool = False,
    trust_network: bool = False,
    log_level: str | None = None,
) -> Deployment:
    """Makes the disks of this Ray cluster one file system; if it runs already, finds it.

    `volumes`: folders, one for each disk, the same on every node; default a folder under ~/.local/share/mobulafs (or
    MOBULAFS_HOME). `namenode_dir`: where the list of files is kept. `namenode_node`: id or address of the node for it;
    default this driver's. `capacity`: at most so much of each volume, as "100g". `detached`: it outlives this driver,
    until `stop`; else everything ends with the driver, at the latest `claim_limit` seconds after it.
    `dead_after`: seconds after which a silent space is healed around. `trust_network`: bind to the nodes' addresses.

    Raises RayNotInitialised, BadArgument, ClusterFailed (with the server's own message).
    """
    configure(log_level)
    require_ray()
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    _check_network(nodes, trust_network)
    home = Path(os.environ.get("MOBULAFS_HOME", "~/.local/share/mobulafs")).expanduser() / name
    given = [volumes] if isinstance(volumes, (str, os.PathLike)) else volumes
    settings = Settings(
        name=_checked_name(name),
        volumes=tuple(os.fspath(volume) for volume in given or [home / "spaces"]),
        namenode_dir=os.fspath(namenode_dir or home / "namenode"),
        capacity=None if capacity is None else str(capacity),
        spaces_per_node=_at_least("spaces_per_node", spaces_per_node, 1),
        replication=_at_least("replication", replication, 1),
        block_size=str(block_size),
        dead_after=dead_after,
        claim_limit=claim_limit,
        detached=detached,
        trust_network=trust_network,
        namenode_node=_node(nodes, namenode_node),
        environment={key: os.environ[key] for key in _PASSED_ON if key in os.environ},
    )
    manager = _existing(name)
    ours = False
    if manager is None:
        # All processes at once; the manager tells the hosts what to do as soon as both are there.
        hosts = [launch_host(settings, node_id, address) for node_id, address in nodes.items()]
        word = uuid.uuid4().hex
        manager = _launch(settings, word)
        if not detached:
            _held[name] = [manager, *hosts]
        # Of several drivers at once only one has made it: the others found it under its name.
        ours = _is_made_with(manager, word)
        if ours and not detached:
            _ours.add(name)
            atexit.register(_end_with_driver, name)
    try:
        found = ray.get(manager.wait_ready.remote(_READY_LIMIT), timeout=_READY_LIMIT * 2)
    except ray.exceptions.RayError as problem:
        _give_up(name, ours)
        cause = getattr(problem, "cause", None)
        raise (cause if isinstance(cause, ClusterFailed) else ClusterFailed(str(problem))) from None
    if found["problems"]:
        _give_up(name, ours)
        raise ClusterFailed("; ".join(found["problems"]))
    if trust_network:
        _LOG.warning("%s", TRUST)
    _LOG.info("mobula %s serves at hdfs://%s:%s", name, found["host"], found["port"])
    return Deployment(name, found["host"], found["port"], found["status"])


def connect(name: str = "default") -> Deployment:
    """The cluster of this name, from any worker or driver. Raises NotDeployed."""
    found = ask(lambda: _manager(name).address.remote())
    return Deployment(name, found["host"], found["port"], found["status"])


def status(name: str = "default") -> Status:
    """Servers, spaces, logs and the health of the data."""
    deployment = connect(name)
    told = ask(lambda: _manager(name).told.remote())
    spaces = ask(lambda: _manager(name).spaces.remote())
    health = deployment.health()
    seen = {node["uuid"]: node for node in health["nodes"]}
    for space in spaces:
        space["seen"] = seen.get(space.get("uuid"))
    warnings = [SINGLE_NAMENODE.format(ip=told["node_ip"])]
    if told["settings"]["trust_network"]:
        warnings.append(TRUST)
    return Status(name, deployment.uri, told, spaces, health, warnings)


def stop(name: str = "default") -> None:
    """Ends all servers and actors in order. The data stays on the disks: `start` again on the same folders."""
    require_ray()
    manager = _manager(name)
    try:
        ray.get(manager.shutdown.remote(), timeout=60)
    finally:
        _held.pop(name, None)
        _ours.discard(name)
        ray.kill(manager)
    # Its name is free for the next `start` once Ray knows.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if _existing(name) is None:
            return
        time.sleep(0.02)


def filesystem(name: str = "default", **options: Any) -> Any:
    """The cluster's files as a `pyarrow.fs.FileSystem`, for Ray Train and Ray Data; use paths without a scheme."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(connect(name).fsspec(**options)))


def require_ray() -> None:
    """Raises RayNotInitialised."""
    if not ray.is_initialized():
        raise RayNotInitialised("Ray is not running in this process: call ray.init() first")


def ask(call: Callable[[], Any]) -> Any:
    """Asks an actor; one that is just being restarted is waited for. Only for what may be asked twice."""
    deadline = time.monotonic() + _RESTART_LIMIT
    while True:
        try:
            return ray.get(call(), timeout=_RESTART_LIMIT)
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.ActorDiedError):
            if time.monotonic() > deadline:
                raise
        except ray.exceptions.RayTaskError as problem:
            cause = problem.cause
            if not isinstance(cause, ClusterFailed):
                raise problem.as_instanceof_cause() from None
            if time.monotonic() > deadline:
                raise cause from None
        time.sleep(0.2)


def fetch(url: str, target: str) -> dict[str, Any]:
    """JSON from a NameNode's status page. Raises NameNodeUnreachable, also if the answer breaks off."""
    try:
        with urllib.request.urlopen(url + target, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise NameNodeUnreachable(f"no NameNode answers at {url}: {problem}") from problem


def _manager(name: str) -> Any:
    require_ray()
    manager = _existing(name)
    if manager is None:
        raise NotDeployed(f"no Mobula named {name!r} runs on this Ray cluster: call mobulafs.ray.start()")
    return manager


def _existing(name: str) -> Any:
    try:
        return ray.get_actor(manager_name(name), namespace=NAMESPACE)
    except ValueError:
        return None


def _is_made_with(manager: Any, word: str) -> bool:
    try:
        return bool(ray.get(manager.owner.remote(), timeout=_READY_LIMIT * 2) == word)
    except ray.exceptions.RayError:
        return False  # it did not start: what it says of that is asked for next


def _launch(settings: Settings, word: str) -> Any:
    actor = ray.remote(Manager).options(
        name=manager_name(settings.name),
        namespace=NAMESPACE,
        get_if_exists=True,  # another driver may have been faster
        lifetime="detached" if settings.detached else None,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=8,
        scheduling_strategy=NodeAffinitySchedulingStrategy(settings.namenode_node, soft=False),
    )
    return actor.remote(settings, word)


def _end_with_driver(name: str) -> None:
    if name in _ours and ray.is_initialized():
        try:
            stop(name)
        except Exception as problem:  # noqa: BLE001 - at exit; the claims lapse and end the servers
            _LOG.debug("not stopped in order: %s", problem)


def _give_up(name: str, ours: bool) -> None:
    if not ours:
        _held.pop(name, None)
        return
    try:
        stop(name)
    except Exception as problem:  # noqa: BLE001 - the first failure is the one to tell
        _LOG.debug("not stopped in order: %s", problem)


def _check_network(nodes: dict[str, str], trusted: bool) -> None:
    outside = sorted({address for address in nodes.values() if not ipaddress.ip_address(address).is_loopback})
    if len(nodes) > 1 and outside and not trusted:
        raise BadArgument(
            f"the nodes are on a network ({', '.join(outside[:3])}{', ...' if len(outside) > 3 else ''}), and {TRUST}. "
            "Give it if that is so"
        )


def _checked_name(name: str) -> str:
    if not name or not all(sign.isalnum() or sign in "-_" for sign in name):
        raise BadArgument(f"a cluster's name is of letters, digits, - and _; {name!r} is not")
    return name


def _at_least(what: str, number: int, least: int) -> int:
    if number < least:
        raise BadArgument(f"{what} is {number}: it must be {least} at least")
    return number


def _node(nodes: dict[str, str], wanted: str | None) -> str:
    if wanted is None:
        return str(ray.get_runtime_context().get_node_id())
    for node_id, address in nodes.items():
        if wanted in (node_id, address):
            return node_id
    raise BadArgument(f"there is no node {wanted!r}; there are {sorted(nodes.values())}")
