"""The supervising actors. They start, watch, claim and end native servers; no byte of a file passes through them.

`Host` looks after the DataNodes of the node where it was placed, its spaces; `Manager` looks after the NameNode and
sees to it that each node of the Ray cluster has its host. All truth about files is in the NameNode: an actor that is
restarted reads what it must know from the folders, and takes its running servers up again.

A worker process of Ray takes a second of a core to start, most of what `start` takes. So there is one a node, however
many spaces it has, and all of them start at once, the NameNode's beside them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..errors import ClusterFailed
from ..logs import configure, logger
from .changes import Changes
from .daemon import Daemon
from .keeper import Keeper, every_tick
from .slots import Slot, take_slot

__all__ = ["NAMESPACE", "Host", "Manager", "Settings", "host_name", "launch_host", "manager_name"]

_LOG = logger(__name__)

#: Where the actors' names live, whatever the driver's own namespace.
NAMESPACE = "mobulafs"
#: A host that does not answer is left alone this long.
_ASK_LIMIT = 10.0
#: Hosts end their servers within so long, or are killed and the claims lapse.
_END_LIMIT = 20.0
#: Actors answer several callers at once: one may wait for a start while others ask.
_CALLERS = 8


@dataclass(frozen=True)
class Settings:
    """What `start` was told; the same for every actor of a cluster."""

    name: str = "default"
    volumes: tuple[str, ...] = ()
    namenode_dir: str = ""
    capacity: str | None = None
    spaces_per_node: int = 1
    replication: int = 3
    block_size: str = "128m"
    dead_after: float = 10.0
    claim_limit: float = 60.0
    detached: bool = False
    trust_network: bool = False
    log_level: str = "info"
    namenode_node: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def manager_name(cluster: str) -> str:
    """The name of a cluster's manager, as Ray's dashboard shows it."""
    return f"mobula {cluster}: NameNode"


def host_name(cluster: str, address: str, node_id: str) -> str:
    """The name of the actor of a node's spaces."""
    return f"{_hosts_prefix(cluster)}{address} ({node_id[:8]})"


def _hosts_prefix(cluster: str) -> str:
    return f"mobula {cluster}: spaces on "


def launch_host(settings: Settings, node_id: str, address: str) -> Any:
    """Begins to start the actor of a node's spaces; finds the one that is there."""
    actor = ray.remote(Host).options(
        name=host_name(settings.name, address, node_id),
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached" if settings.detached else None,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=_CALLERS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )
    return actor.remote(settings)


def _begin(settings: Settings) -> None:
    os.environ.update(settings.environment)
    configure()


class _Supervisor:
    """What both actors share: a thread that keeps things as they should be."""

    def __init__(self, settings: Settings) -> None:
        _begin(settings)
        self.settings = settings
        self.node_id: str = ray.get_runtime_context().get_node_id()
        self.node_ip: str = ray.util.get_node_ip_address()
        self._ending = threading.Event()

    def _bind(self) -> str:
        return bind_address(self.node_ip, self.settings.trust_network)


def bind_address(node_ip: str, trust_network: bool) -> str:
    """Where a server of this node listens: on the node's own address only if the network is trusted.

    All nodes of a Ray on loopback are on one machine, whatever their addresses there: connections among them come from
    127.0.0.1, by which the NameNode then knows its DataNodes.
    """
    return node_ip if trust_network and not ipaddress.ip_address(node_ip).is_loopback else "127.0.0.1"


class Space:
    """One DataNode with its folder. Lives in its node's Host."""

    def __init__(self, index: int, slot: Slot, settings: Settings, bind: str) -> None:
        """Starts nothing before it knows the NameNode."""
        self.index = index
        self._slot = slot
        self._capacity = settings.capacity
        self._bind = bind
        self._folders = [Path(volume).expanduser() / slot.folder.name / "data" for volume in settings.volumes]
        daemon = Daemon(slot.folder / "run", settings.claim_limit, settings.log_level)
        self._keeper = Keeper(daemon, f"the DataNode of space {index}")
        self._namenode: str | None = None
        self._killed = False
        self._ending = threading.Event()
        # A thread of its own: the claims of all spaces are renewed while one of them starts.
        every_tick(self._keeper.tick, self._ending, f"space {index}")

    def follow(self, namenode: str) -> None:
        """Serves this NameNode from now on; a killed space stays down until it is revived."""
        if namenode != self._namenode:
            self._namenode = namenode
            if not self._killed:
                self._start()

    def told(self) -> dict[str, Any]:
        """For `status`: its address, its log, and what is wrong."""
        ready = self._keeper.daemon.ready
        return {
            "index": self.index,
            "address": ready.words[0] if ready and ready.words else None,
            "uuid": ready.words[1] if ready and len(ready.words) > 1 else None,
            "volumes": [str(folder) for folder in self._folders],
            "killed": self._killed,
            **self._keeper.told(),
        }

    def kill(self, again: bool) -> int | None:
        """A real SIGKILL of the DataNode; without `again` it stays down until `revive`."""
        self._killed = not again
        return self._keeper.kill(again)

    def revive(self) -> None:
        """Starts a killed DataNode again on its disk."""
        self._killed = False
        if self._namenode:
            self._start()

    def shutdown(self) -> None:
        """Ends the DataNode in order; its folder stays this node's."""
        self._ending.set()
        self._keeper.stop()
        self._slot.release()

    def leave(self) -> None:
        """Ends the DataNode for good; its folder stays as it is, and no space takes it any more.

        Not in order: one that says that it stops is waited for, for a minute, before its chunks are copied.
        """
        self._ending.set()
        self._keeper.kill(again=False)
        self._keeper.stop()
        self._slot.retire()
        self._slot.release()

    def _start(self) -> None:
        args = ["datanode", "--namenode", str(self._namenode), "--listen", f"{self._bind}:0"]
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            args += ["--dir", str(folder)]
        if self._capacity:
            args += ["--capacity", self._capacity]
        self._keeper.want(args)
        self._keeper.start()


class Host(_Supervisor):
    """Supervises the DataNodes of one node."""

    def __init__(self, settings: Settings) -> None:
        """Waits to be told of its spaces and of the NameNode."""
        super().__init__(settings)
        self._spaces: dict[int, Space] = {}
        self._lock = threading.RLock()

    def follow(self, namenode: str, indices: list[int]) -> list[dict[str, Any]]:
        """Has spaces of these numbers, which serve this NameNode; returns when they do, or say why not."""
        with self._lock:
            if self._ending.is_set():
                return []
            for index in indices:
                if index not in self._spaces:
                    self._spaces[index] = Space(index, self._take_slot(index), self.settings, self._bind())
            spaces = list(self._spaces.values())
        _at_once(lambda space: space.follow(namenode), spaces)
        return self.told()

    def told(self) -> list[dict[str, Any]]:
        """For `status`: each space."""
        here = {"node_id": self.node_id, "node_ip": self.node_ip}
        return [{**here, **space.told()} for space in list(self._spaces.values())]

    def kill(self, index: int, again: bool = False) -> int | None:
        """A real SIGKILL of a DataNode; without `again` it stays down until `revive`."""
        return self._spaces[index].kill(again)

    def revive(self, index: int) -> dict[str, Any]:
        """Starts a killed DataNode again on its disk."""
        self._spaces[index].revive()
        return self._spaces[index].told()

    def remove(self, index: int) -> None:
        """Ends a space for good."""
        with self._lock:
            space = self._spaces.pop(index, None)
        if space:
            space.leave()

    def shutdown(self) -> None:
        """Ends all DataNodes in order, for good: a `follow` that comes late begins none."""
        self._ending.set()
        with self._lock:
            spaces = list(self._spaces.values())
            self._spaces.clear()
        _at_once(lambda space: space.shutdown(), spaces)

    def _take_slot(self, index: int) -> Slot:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return take_slot(Path(self.settings.volumes[0]).expanduser(), self.node_id, alive, index)


def _at_once(job: Callable[[Space], None], spaces: list[Space]) -> None:
    if spaces:
        with ThreadPoolExecutor(len(spaces)) as pool:
            list(pool.map(job, spaces))


class Manager(_Supervisor):
    """Supervises the NameNode, and gives each node of the Ray cluster its spaces."""

    def __init__(self, settings: Settings, owner: str = "") -> None:
        """Starts, or takes up, the NameNode and the spaces of all nodes. `owner`: a word of the driver that made it."""
        super().__init__(settings)
        self._owner = owner
        self._hosts: dict[str, Any] = {}
        self._places: dict[int, str] = {}
        self._changes = Changes(Path(settings.namenode_dir).expanduser() / "spaces.json")
        self._answers: dict[str, Any] = {}
        self._looked_about = False
        self._lock = threading.RLock()
        self._keeper = Keeper(
            Daemon(Path(settings.namenode_dir).expanduser() / "run", settings.claim_limit, settings.log_level),
            "the NameNode",
        )
        self._keeper.want(self._args())
        self._keeper.start()
        self._settle()
        every_tick(self._tick, self._ending, "manager")

    def address(self) -> dict[str, Any]:
        """Where the NameNode is: host, port, status page. Raises ClusterFailed with its message if it does not run."""
        if self._keeper.daemon.ready is None:
            raise ClusterFailed(self._keeper.problem or "the NameNode does not run")
        uri, status = (*self._keeper.daemon.ready.words, "")[:2]
        host, _, port = uri.removeprefix("hdfs://").partition(":")
        return {"host": host, "port": int(port), "status": status}

    def owner(self) -> str:
        """The word that the driver gave which made this cluster."""
        return self._owner

    def wait_ready(self, limit: float) -> dict[str, Any]:
        """Waits until every space of every node serves; what does not by then is told in `problems`."""
        where = self.address()
        deadline = time.monotonic() + limit
        while True:
            # A host answers when its spaces serve.
            with self._lock:
                answers = list(self._answers.values())
            if answers:
                ray.wait(answers, num_returns=len(answers), timeout=max(deadline - time.monotonic(), 0.01))
            spaces = self.spaces()
            waiting = [space for space in spaces if not space.get("running") and not space.get("killed")]
            if spaces and not waiting:
                return {**where, "problems": []}
            if time.monotonic() > deadline:
                said = [f"space {space['index']}: {space.get('problem') or 'it starts'}" for space in waiting]
                return {**where, "problems": said or ["there is no node to put a space on"]}
            time.sleep(0.05)

    def told(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "settings": asdict(self.settings),
            "node_id": self.node_id,
            "node_ip": self.node_ip,
            "namenode_dir": self.settings.namenode_dir,
            "actor_pid": os.getpid(),
            **self._keeper.told(),
        }

    def spaces(self) -> list[dict[str, Any]]:
        """What each space tells of itself; one whose host does not answer is told as such."""
        with self._lock:
            handles, places = dict(self._hosts), dict(self._places)
        answers = self._ask(handles)
        found = {told["index"]: told for told in answers.values() if isinstance(told, list) for told in told}
        for index, node_id in places.items():
            if index not in found:
                answer = answers.get(node_id)
                said = f"its actor does not answer: {type(answer).__name__}" if isinstance(answer, Exception) else None
                away = {"index": index, "node_id": node_id, "running": False, "killed": False, "pid": None}
                found[index] = {**away, "problem": said}
        return [found[index] for index in sorted(places)]

    def space(self, index: int) -> Any:
        """The actor that has a space. Raises KeyError."""
        with self._lock:
            return self._hosts[self._places[index]]

    def add_space(self, node_id: str | None = None) -> int:
        """One more space, on the node given or on the one with the fewest; its index."""
        with self._lock:
            if self._ending.is_set():
                raise ClusterFailed("the cluster is being stopped")
            alive = self._alive()
            if node_id is None:
                counts = {node: sum(place == node for place in self._places.values()) for node in alive}
                node_id = min(sorted(alive), key=lambda node: counts[node])
            if node_id not in alive:
                raise KeyError(node_id)
            self._changes.add(node_id, alive[node_id], 1, alive)
            index = self._free_index()
            self._places[index] = node_id
            self._answers.pop(node_id, None)
        self._lead()
        return index

    def remove_space(self, index: int) -> None:
        """Ends a space for good; its data stays on its disk, in a folder that no space takes any more."""
        with self._lock:
            alive = self._alive()
            node_id = self._places.pop(index)
            self._answers.pop(node_id, None)
            self._changes.add(node_id, alive.get(node_id, ""), -1, alive)
            handle = self._hosts[node_id]
        ray.get(handle.remove.remote(index))

    def kill_namenode(self) -> int | None:
        """A real SIGKILL of the NameNode; it is started again at once."""
        return self._keeper.kill(again=True)

    def shutdown(self) -> None:
        """Ends everything in order: DataNodes first, so that they can say so."""
        self._ending.set()
        with self._lock:
            handles = list(self._hosts.values())
            led = bool(self._places)
            self._hosts.clear()
            self._places.clear()
        # Hosts that were told of no space have none, and may not even have started.
        if led:
            ends = [handle.shutdown.remote() for handle in handles]
            ray.wait(ends, num_returns=len(ends), timeout=_END_LIMIT)
        for handle in handles:
            ray.kill(handle)
        self._keeper.stop()

    def _tick(self) -> None:
        self._keeper.tick()
        if self._keeper.problem and "address" in self._keeper.problem.lower():
            # Somebody else took our port while we were away: the spaces are told the new one.
            (Path(self.settings.namenode_dir).expanduser() / "ports").unlink(missing_ok=True)
            self._keeper.want(self._args())
        self._bury()
        self._settle()

    def _settle(self) -> None:
        """Once there is a NameNode: every node has its host, and every host knows what to do."""
        if self._keeper.daemon.ready is None:
            return
        if not self._looked_about:
            self._find_hosts()
            self._looked_about = True
        self._fill()
        self._lead()

    def _args(self) -> list[str]:
        folder = Path(self.settings.namenode_dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        # The same ports after a restart: those who know them find it again.
        kept = folder / "ports"
        if not kept.exists():
            kept.write_text(" ".join(map(str, free_ports(self._bind(), 2))))
        port, status = kept.read_text().split()
        args = ["namenode", "--dir", str(folder / "data"), "--listen", f"{self._bind()}:{port}", "--http-port", status]
        args += ["--replication", str(self.settings.replication), "--block-size", self.settings.block_size]
        lines = ["[namenode]", f'dead_after = "{int(self.settings.dead_after * 1000)}ms"']
        if self.settings.trust_network:
            # A node with several addresses may connect from another one than it serves on.
            lines.append("trust_advertised_address = true")
        own = folder / "mobula.toml"
        own.write_text("\n".join(lines) + "\n")
        return [*args, "--min-block-size", "512", "--config", str(own)]

    def _alive(self) -> dict[str, str]:
        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    def _ask(self, handles: dict[str, Any]) -> dict[str, Any]:
        """What each host tells, or the exception."""
        asked = {node_id: handle.told.remote() for node_id, handle in handles.items()}
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ASK_LIMIT)
        found: dict[str, Any] = {}
        for node_id, answer in asked.items():
            try:
                found[node_id] = ray.get(answer, timeout=0.01)
            except Exception as problem:  # noqa: BLE001 - Ray has many ways to say that an actor is away
                found[node_id] = problem
        return found

    def _find_hosts(self) -> None:
        """The hosts that `start` began or that outlived this actor, and the numbers of their spaces."""
        with self._lock:
            if self._ending.is_set():
                return
            for node_id, address in self._alive().items():
                self._hosts[node_id] = launch_host(self.settings, node_id, address)
            handles = dict(self._hosts)
        answers = self._ask(handles)
        with self._lock:
            for node_id, told in answers.items():
                if isinstance(told, list) and not self._ending.is_set():
                    self._places.update({space["index"]: node_id for space in told})

    def _fill(self) -> None:
        """Each node that is alive gets its spaces; those of nodes that left are forgotten."""
        with self._lock:
            if self._ending.is_set():
                return  # `shutdown` has told all hosts of before
            alive = self._alive()
            for node_id in [node_id for node_id in self._hosts if node_id not in alive]:
                gone = self._forget(node_id)
                _LOG.warning("the node of the spaces %s left: their chunks are healed from the others", gone)
            for node_id, address in sorted(alive.items(), key=lambda node: node[1]):
                if node_id not in self._hosts:
                    self._hosts[node_id] = launch_host(self.settings, node_id, address)
                have = sum(place == node_id for place in self._places.values())
                wanted = self.settings.spaces_per_node + self._changes.of(node_id, address, alive)
                for _ in range(wanted - have):
                    self._places[self._free_index()] = node_id

    def _forget(self, node_id: str) -> list[int]:
        ray.kill(self._hosts.pop(node_id))
        self._answers.pop(node_id, None)
        gone = [index for index, place in self._places.items() if place == node_id]
        for index in gone:
            del self._places[index]
        return gone

    def _free_index(self) -> int:
        return next(number for number in range(len(self._places) + 1) if number not in self._places)

    def _lead(self) -> None:
        """Tells every host its spaces and where the NameNode is; those that were restarted do not know."""
        ready = self._keeper.daemon.ready
        if ready is None:
            return
        namenode = ready.words[0].removeprefix("hdfs://")
        with self._lock:
            if self._ending.is_set():
                return
            for node_id, handle in self._hosts.items():
                if node_id not in self._answers:
                    indices = sorted(index for index, place in self._places.items() if place == node_id)
                    self._answers[node_id] = handle.follow.remote(namenode, indices)

    def _bury(self) -> None:
        """Forgets actors that died for good, as those of a manager that died before us do; they are made anew."""
        with self._lock:
            if not self._answers:
                return
            ready, _ = ray.wait(list(self._answers.values()), num_returns=len(self._answers), timeout=0)
            for node_id, answer in list(self._answers.items()):
                if answer not in ready:
                    continue
                del self._answers[node_id]
                try:
                    ray.get(answer)
                except ray.exceptions.ActorUnavailableError:
                    pass  # it is being restarted
                except ray.exceptions.ActorDiedError:
                    self._hosts.pop(node_id, None)
                except Exception as problem:  # noqa: BLE001 - the spaces tell it in their status too
                    _LOG.error("the spaces of node %s: %s", node_id, problem)


def free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
