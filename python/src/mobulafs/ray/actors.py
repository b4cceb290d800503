"""The supervising actors. They start, watch, claim and end native servers; no byte of a file passes through them.

`Space` looks after one DataNode on the node where it was placed; `Manager` looks after the NameNode and sees to it that
each node of the Ray cluster has its spaces. All truth about files is in the NameNode: an actor that is restarted reads
what it must know from the folders, and takes its running server up again.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..errors import ClusterFailed
from ..logs import configure, logger
from .daemon import Daemon
from .slots import Slot, take_slot

__all__ = ["NAMESPACE", "Manager", "Settings", "Space", "manager_name", "space_name"]

_LOG = logger(__name__)

#: Where the actors' names live, whatever the driver's own namespace.
NAMESPACE = "mobulafs"
#: Claims are renewed, servers and nodes looked at, this often (seconds).
_TICK = 1.0
#: A server that does not start is tried again after so long, twice that, and so on up to the maximum.
_RETRY_FIRST, _RETRY_MAX = 0.5, 30.0
#: A space that its actor does not answer for is left alone this long.
_ASK_LIMIT = 10.0
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


def space_name(cluster: str, index: int, address: str) -> str:
    """The name of a space's actor."""
    return f"mobula {cluster}: space {index} on {address}"


def _begin(settings: Settings) -> None:
    os.environ.update(settings.environment)
    configure()


class _Keeper:
    """Keeps one server running as long as it is wanted."""

    def __init__(self, daemon: Daemon, what: str) -> None:
        self.daemon = daemon
        self.problem: str | None = None
        self.starts = 0
        self._what = what
        self._args: list[str] | None = None
        self._lock = threading.RLock()
        self._retry_at = 0.0
        self._pause = _RETRY_FIRST

    def want(self, args: list[str] | None) -> None:
        """With these arguments; None: not at all."""
        with self._lock:
            self._args, self._retry_at, self._pause = args, 0.0, _RETRY_FIRST

    def tick(self) -> None:
        """Renews the claim, and starts what should run and does not."""
        with self._lock:
            if self._args is None:
                return
            self.daemon.renew()
            if self.daemon.alive() or time.monotonic() < self._retry_at:
                return
            self.start()

    def start(self) -> None:
        """Starts it now, or takes it up again."""
        with self._lock:
            if self._args is None:
                return
            try:
                self.starts += self.daemon.ensure(self._args)
                self.problem, self._pause = None, _RETRY_FIRST
            except (ClusterFailed, OSError) as problem:
                self.problem = str(problem)
                self._retry_at = time.monotonic() + self._pause
                self._pause = min(self._pause * 2, _RETRY_MAX)
                _LOG.error("%s does not start: %s", self._what, problem)

    def kill(self, again: bool) -> int | None:
        """SIGKILL; without `again` it stays down."""
        with self._lock:
            if not again:
                self._args = None
            return self.daemon.kill()

    def stop(self) -> None:
        """Ends it in order, for good."""
        with self._lock:
            self._args = None
            self.daemon.stop()

    def told(self) -> dict[str, Any]:
        """For `status`."""
        ready = self.daemon.ready
        running = self.daemon.alive()
        return {
            "running": running,
            "pid": ready.pid if ready and running else None,
            "folder": str(self.daemon.folder),
            "log": str(self.daemon.log_file),
            "starts": self.starts,
            "problem": self.problem,
        }


class _Supervisor:
    """What both actors share: a thread that keeps things as they should be."""

    def __init__(self, settings: Settings) -> None:
        _begin(settings)
        self.settings = settings
        self.node_id: str = ray.get_runtime_context().get_node_id()
        self.node_ip: str = ray.util.get_node_ip_address()
        self._ending = threading.Event()

    def _run(self, tick: Any, what: str) -> None:
        def loop() -> None:
            while not self._ending.wait(_TICK):
                try:
                    tick()
                except Exception:  # noqa: BLE001 - whatever it was, the claim must be renewed in a second
                    _LOG.exception("%s: a look around failed", what)

        threading.Thread(target=loop, daemon=True, name=f"mobula {what}").start()

    def _bind(self) -> str:
        return bind_address(self.node_ip, self.settings.trust_network)

    def ping(self) -> int:
        """That it lives: its process."""
        return os.getpid()


def bind_address(node_ip: str, trust_network: bool) -> str:
    """Where a server of this node listens: on the node's own address only if the network is trusted.

    All nodes of a Ray on loopback are on one machine, whatever their addresses there: connections among them come from
    127.0.0.1, by which the NameNode then knows its DataNodes.
    """
    return node_ip if trust_network and not ipaddress.ip_address(node_ip).is_loopback else "127.0.0.1"


class Space(_Supervisor):
    """Supervises one DataNode."""

    def __init__(self, settings: Settings, index: int, namenode: str | None = None) -> None:
        """Takes a folder on this node; starts the DataNode once it knows the NameNode."""
        super().__init__(settings)
        self.index = index
        volumes = [Path(volume).expanduser() for volume in settings.volumes]
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        self._slot: Slot = take_slot(volumes[0], self.node_id, alive)
        name = self._slot.folder.name
        self._folders = [volume / name / "data" for volume in volumes]
        daemon = Daemon(self._slot.folder / "run", settings.claim_limit, settings.log_level)
        self._keeper = _Keeper(daemon, f"the DataNode of space {index}")
        self._namenode: str | None = None
        self._killed = False
        if namenode:
            self.follow(namenode)
        self._run(self._keeper.tick, f"space {index}")

    def follow(self, namenode: str) -> dict[str, Any]:
        """Serves this NameNode from now on; a killed space stays down until it is revived."""
        if namenode != self._namenode:
            self._namenode = namenode
            if not self._killed:
                self._keeper.want(self._args())
                self._keeper.start()
        return self.told()

    def told(self) -> dict[str, Any]:
        """For `status`: who, where, its log, and what is wrong."""
        ready = self._keeper.daemon.ready
        return {
            "index": self.index,
            "node_id": self.node_id,
            "node_ip": self.node_ip,
            "address": ready.words[0] if ready and ready.words else None,
            "uuid": ready.words[1] if ready and len(ready.words) > 1 else None,
            "volumes": [str(folder) for folder in self._folders],
            "killed": self._killed,
            **self._keeper.told(),
        }

    def kill(self, again: bool = False) -> int | None:
        """A real SIGKILL of the DataNode; without `again` it stays down until `revive`."""
        self._killed = not again
        return self._keeper.kill(again)

    def revive(self) -> dict[str, Any]:
        """Starts a killed DataNode again on its disk."""
        self._killed = False
        if self._namenode:
            self._keeper.want(self._args())
            self._keeper.start()
        return self.told()

    def shutdown(self, leave: bool = False) -> None:
        """Ends the DataNode in order; with `leave` its folder is free for other nodes."""
        self._ending.set()
        self._keeper.stop()
        if leave:
            self._slot.note(None)
        self._slot.release()

    def _args(self) -> list[str]:
        args = ["datanode", "--namenode", str(self._namenode), "--listen", f"{self._bind()}:0"]
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            args += ["--dir", str(folder)]
        if self.settings.capacity:
            args += ["--capacity", self.settings.capacity]
        return args


class Manager(_Supervisor):
    """Supervises the NameNode, and gives each node of the Ray cluster its spaces."""

    def __init__(self, settings: Settings) -> None:
        """Starts, or takes up, the NameNode and the spaces of all nodes."""
        super().__init__(settings)
        self._spaces: dict[int, Any] = {}
        self._places: dict[int, str] = {}
        self._wanted: dict[str, int] = {}
        self._answers: dict[int, Any] = {}
        self._lock = threading.RLock()
        self._find_spaces()
        # Their processes start while the NameNode does.
        self._fill()
        self._keeper = _Keeper(
            Daemon(Path(settings.namenode_dir).expanduser() / "run", settings.claim_limit, settings.log_level),
            "the NameNode",
        )
        self._keeper.want(self._args())
        self._keeper.start()
        self._lead()
        self._run(self._tick, "manager")

    def address(self) -> dict[str, Any]:
        """Where the NameNode is: host, port, status page. Raises ClusterFailed with its message if it does not run."""
        if self._keeper.daemon.ready is None:
            raise ClusterFailed(self._keeper.problem or "the NameNode does not run")
        uri, status = (*self._keeper.daemon.ready.words, "")[:2]
        host, _, port = uri.removeprefix("hdfs://").partition(":")
        return {"host": host, "port": int(port), "status": status}

    def wait_ready(self, limit: float) -> dict[str, Any]:
        """Waits until every space of every node serves; what does not by then is told in `problems`."""
        where = self.address()
        deadline = time.monotonic() + limit
        while True:
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
            **self._keeper.told(),
        }

    def spaces(self) -> list[dict[str, Any]]:
        """What each space tells of itself; one that does not answer is told as such."""
        with self._lock:
            handles = dict(self._spaces)
            places = dict(self._places)
        asked = {index: handle.told.remote() for index, handle in handles.items()}
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ASK_LIMIT)
        found = []
        for index, answer in sorted(asked.items()):
            try:
                found.append(ray.get(answer, timeout=0.01))
            except Exception as problem:  # noqa: BLE001 - Ray has many ways to say that an actor is away
                away = {"index": index, "node_id": places.get(index), "running": False, "killed": False}
                found.append({**away, "problem": f"its actor does not answer: {type(problem).__name__}"})
        return found

    def space(self, index: int) -> Any:
        """The actor of a space. Raises KeyError."""
        with self._lock:
            return self._spaces[index]

    def add_space(self, node_id: str | None = None) -> int:
        """One more space, on the node given or on the one with the fewest; its index."""
        with self._lock:
            alive = self._alive()
            if node_id is None:
                counts = {node: sum(place == node for place in self._places.values()) for node in alive}
                node_id = min(sorted(alive), key=lambda node: counts[node])
            if node_id not in alive:
                raise KeyError(node_id)
            self._wanted[node_id] = self._wanted.get(node_id, self.settings.spaces_per_node) + 1
            index = self._launch(node_id, alive[node_id])
        self._lead()
        return index

    def remove_space(self, index: int) -> None:
        """Ends a space for good; its data stays on its disk."""
        with self._lock:
            handle, node_id = self._spaces.pop(index), self._places.pop(index)
            self._answers.pop(index, None)
            self._wanted[node_id] = max(self._wanted.get(node_id, self.settings.spaces_per_node) - 1, 0)
        ray.get(handle.shutdown.remote(leave=True))
        ray.kill(handle)

    def kill_namenode(self) -> int | None:
        """A real SIGKILL of the NameNode; it is started again at once."""
        return self._keeper.kill(again=True)

    def shutdown(self) -> None:
        """Ends everything in order: DataNodes first, so that they can say so."""
        self._ending.set()
        with self._lock:
            handles = list(self._spaces.values())
            self._spaces.clear()
        ends = [handle.shutdown.remote() for handle in handles]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=20)
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

    def _find_spaces(self) -> None:
        """After a restart of this actor: the detached spaces that run on."""
        prefix = space_name(self.settings.name, 0, "").partition("0 on ")[0]
        for found in ray.util.list_named_actors(all_namespaces=True):
            if found["namespace"] != NAMESPACE or not found["name"].startswith(prefix):
                continue
            try:
                handle = ray.get_actor(found["name"], namespace=NAMESPACE)
                told = ray.get(handle.told.remote(), timeout=_ASK_LIMIT)
            except Exception:  # noqa: BLE001 - one that is gone with its node is made anew elsewhere
                continue
            self._spaces[told["index"]], self._places[told["index"]] = handle, told["node_id"]

    def _fill(self) -> None:
        """Each node that is alive gets its spaces; those of nodes that left are forgotten."""
        with self._lock:
            alive = self._alive()
            for index in [index for index, node in self._places.items() if node not in alive]:
                _LOG.warning("the node of space %d left: its chunks are healed from the others", index)
                ray.kill(self._spaces.pop(index))
                del self._places[index]
                self._answers.pop(index, None)
            for node_id, address in sorted(alive.items(), key=lambda node: node[1]):
                have = sum(place == node_id for place in self._places.values())
                for _ in range(self._wanted.get(node_id, self.settings.spaces_per_node) - have):
                    self._launch(node_id, address)

    def _launch(self, node_id: str, address: str) -> int:
        index = next(number for number in range(len(self._spaces) + 1) if number not in self._spaces)
        actor = ray.remote(Space).options(
            name=space_name(self.settings.name, index, f"{address} ({node_id[:8]})"),
            namespace=NAMESPACE,
            lifetime="detached" if self.settings.detached else None,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=_CALLERS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        self._spaces[index] = actor.remote(self.settings, index)
        self._places[index] = node_id
        return index

    def _lead(self) -> None:
        """Tells every space where the NameNode is; those that were restarted do not know."""
        ready = self._keeper.daemon.ready
        if ready is None:
            return
        namenode = ready.words[0].removeprefix("hdfs://")
        with self._lock:
            for index, handle in self._spaces.items():
                if index not in self._answers:
                    self._answers[index] = handle.follow.remote(namenode)

    def _bury(self) -> None:
        """Forgets actors that died for good, as those of a manager that died before us do; they are made anew."""
        with self._lock:
            if not self._answers:
                return
            ready, _ = ray.wait(list(self._answers.values()), num_returns=len(self._answers), timeout=0)
            for index, answer in list(self._answers.items()):
                if answer not in ready:
                    continue
                del self._answers[index]
                try:
                    ray.get(answer)
                except ray.exceptions.ActorUnavailableError:
                    pass  # it is being restarted
                except ray.exceptions.ActorDiedError:
                    self._spaces.pop(index, None)
                    self._places.pop(index, None)
                except Exception as problem:  # noqa: BLE001 - the space tells it in its status too
                    _LOG.error("space %d: %s", index, problem)


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
