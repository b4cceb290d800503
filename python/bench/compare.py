"""Measures Mobula on Ray beside plain Ray actors and beside the local disk, in one run, and prints a table.

    python python/bench/compare.py [--rounds 3] [--big 1024] [--folder DIR] [--skip heal,train,...]

Each figure is the median of the rounds, with the least and the most; the kinds take turns within a round. All three
copies are on one disk here, and Mobula syncs every one before it answers; Ray's actors keep them in memory, and
`shutil` writes one copy and syncs it. What the machine does beside that is told by its load average.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")

import hdfs_native
import ray

import mobulafs.ray
from mobulafs import binary
from mobulafs.ray import DataManager

MIB = 1 << 20
SPACES = 4
COPIES = 3


@ray.remote(num_cpus=0)
class PlainSpace:
    """A space as the teaching example has it: chunks in an actor's memory."""

    def __init__(self) -> None:
        self.chunks: dict[tuple[str, int], bytes] = {}

    def put(self, name: str, number: int, chunk: bytes) -> None:
        self.chunks[name, number] = chunk

    def get(self, name: str, number: int) -> bytes:
        return self.chunks[name, number]

    def drop(self, name: str) -> None:
        self.chunks = {key: chunk for key, chunk in self.chunks.items() if key[0] != name}

    def bytes_of_memory(self) -> int:
        return resident(os.getpid())


class PlainManager:
    """Artifacts over plain actors: chunks of 8 MiB, three copies, acknowledged (the example does not wait)."""

    chunk = 8 * MIB

    def __init__(self) -> None:
        self.spaces = [PlainSpace.remote() for _ in range(SPACES)]
        self.lengths: dict[str, int] = {}

    def add(self, name: str, data: bytes) -> None:
        puts = []
        for number, at in enumerate(range(0, max(len(data), 1), self.chunk)):
            reference = ray.put(data[at : at + self.chunk])
            for copy in range(COPIES):
                puts.append(self.spaces[(number + copy) % SPACES].put.remote(name, number, reference))
        ray.get(puts)
        self.lengths[name] = len(puts) // COPIES

    def get(self, name: str) -> bytes:
        chunks = [self.spaces[number % SPACES].get.remote(name, number) for number in range(self.lengths[name])]
        return b"".join(ray.get(chunks))

    def remove(self, name: str) -> None:
        ray.get([space.drop.remote(name) for space in self.spaces])


def resident(pid: int) -> int:
    """A process's memory, bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Table:
    """What was measured, in the order in which it came."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str], list[float]] = {}
        self.units: dict[str, str] = {}

    def time(self, what: str, kind: str, amount: float, unit: str, job: Callable[[], Any]) -> Any:
        # What the step before has left to be written is not written at the cost of this one.
        os.sync()
        began = time.perf_counter()
        result = job()
        self.note(what, kind, amount / (time.perf_counter() - began), unit)
        return result

    def note(self, what: str, kind: str, figure: float, unit: str) -> None:
        self.figures.setdefault((what, kind), []).append(figure)
        self.units[what] = unit

    def show(self) -> None:
        print(f"\n| {'what':44} | {'with':24} | n | {'least':>8} | {'median':>8} | {'most':>8} | unit |")
        print("|---|---|---|---|---|---|---|")
        for (what, kind), found in self.figures.items():
            low, middle, high = (f"{f(found):8.4g}" for f in (min, statistics.median, max))
            print(f"| {what:44} | {kind:24} | {len(found)} | {low} | {middle} | {high} | {self.units[what]} |")


def whole(table: Table, length: int, managers: dict[str, Any], fs: Any, folder: Path) -> None:
    """One artifact in and out, by every way."""
    data = os.urandom(length)
    title = f"{length // MIB} MiB"
    for kind, manager in managers.items():
        table.time(f"put {title}", kind, length / MIB, "MiB/s", lambda m=manager: m.add("whole", data))
        back = table.time(f"get {title}", kind, length / MIB, "MiB/s", lambda m=manager: m.get("whole"))
        assert back == data
        manager.remove("whole")
    table.time(f"put {title}", "fsspec", length / MIB, "MiB/s", lambda: fs.pipe("/whole", data))
    assert table.time(f"get {title}", "fsspec", length / MIB, "MiB/s", lambda: fs.cat("/whole")) == data
    fs.rm("/whole")
    client = fs.client

    def native() -> None:
        with client.create("/native", hdfs_native.WriteOptions(replication=COPIES)) as out:
            out.write(data)

    # A file of its own: what is read for the first time since it was put comes from the disk, for all alike.
    table.time(f"put {title}", "hdfs-native itself", length / MIB, "MiB/s", native)
    table.time(f"get {title}", "hdfs-native itself", length / MIB, "MiB/s", lambda: client.read("/native").read())
    fs.rm("/native")
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)

    def copied() -> None:
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())

    table.time(f"put {title}", "shutil, one copy, synced", length / MIB, "MiB/s", copied)
    table.time(f"get {title}", "shutil", length / MIB, "MiB/s", target.read_bytes)
    mobula: DataManager = managers["DataManager"]
    # Replacing a file that is there has ext4 write the new one out first.
    target.unlink()
    table.time(f"file in {title}", "DataManager", length / MIB, "MiB/s", lambda: mobula.add("file", source))
    table.time(f"file out {title}", "DataManager", length / MIB, "MiB/s", lambda: mobula.get("file", into=target))
    mobula.remove("file")
    uri = mobula.deployment.uri
    table.time(
        f"file in {title}",
        "mobula fs -put",
        length / MIB,
        "MiB/s",
        lambda: binary.run("fs", "-fs", uri, "-put", source, "/file"),
    )
    target.unlink()
    table.time(
        f"file out {title}",
        "mobula fs -get",
        length / MIB,
        "MiB/s",
        lambda: binary.run("fs", "-fs", uri, "-get", "/file", target),
    )
    fs.rm("/file")
    source.unlink()
    target.unlink()


def small(table: Table, managers: dict[str, Any], count: int = 500) -> None:
    """Many artifacts of 1 KB, one by one and 16 at once."""
    data = os.urandom(1000)
    for kind, manager in managers.items():
        table.time(
            "1 KB adds, one by one",
            kind,
            count,
            "a second",
            lambda m=manager: [m.add(f"one-{number}", data) for number in range(count)],
        )
        with ThreadPoolExecutor(16) as pool:
            table.time(
                "1 KB adds, 16 in flight",
                kind,
                count * 2,
                "a second",
                lambda m=manager, p=pool: list(p.map(lambda number: m.add(f"many-{number}", data), range(count * 2))),
            )
            for number in range(count):
                manager.remove(f"one-{number}")
            list(pool.map(lambda number, m=manager: m.remove(f"many-{number}"), range(count * 2)))


def heal(table: Table, manager: DataManager) -> None:
    """A space that is killed, until all is whole again, detection included."""
    manager.add("heal", os.urandom(256 * MIB))
    began = time.perf_counter()
    victim = max(manager.list_spaces(), key=lambda space: space.list().get("heal", 0))
    victim.kill()
    manager.heal()
    assert manager.check_status("heal").healthy
    table.note("heal a killed space, 256 MiB", "Mobula", time.perf_counter() - began, "s")
    victim.revive()
    manager.heal()
    manager.remove("heal")


def checkpoints(table: Table, length: int, folder: Path, fs: Any) -> None:
    """A checkpoint of four workers, each with its part, through Ray Train: to Mobula and to a local folder."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem
    from ray import train
    from ray.train import Checkpoint, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    def loop(config: dict[str, Any]) -> None:
        rank = train.get_context().get_world_rank()
        with tempfile.TemporaryDirectory() as own:
            (Path(own) / f"part-{rank}").write_bytes(os.urandom(config["length"]))
            began = time.perf_counter()
            train.report({"ready": 1}, checkpoint=Checkpoint.from_directory(own))
            Path(config["told"], str(rank)).write_text(str(time.perf_counter() - began))

    places = {
        "Ray Train on Mobula": {"storage_filesystem": PyFileSystem(FSSpecHandler(fs)), "storage_path": "/train"},
        "Ray Train on a folder": {"storage_path": str(folder / "train")},
    }
    told = folder / "told"
    told.mkdir(exist_ok=True)
    for kind, place in places.items():
        result = DataParallelTrainer(
            loop,
            train_loop_config={"length": length // 4, "told": str(told)},
            scaling_config=ScalingConfig(num_workers=4, resources_per_worker={"CPU": 0.25}),
            run_config=RunConfig(name="bench", **place),
        ).fit()
        if result.error:
            raise result.error
        title = f"checkpoint of {length // MIB} MiB, 4 workers"
        table.note(title, kind, length / MIB / max(float(file.read_text()) for file in told.iterdir()), "MiB/s")
    shutil.rmtree(folder / "train", ignore_errors=True)
    fs.rm("/train", recursive=True)


def rounds(table: Table, mobula: DataManager, plain: PlainManager, given: argparse.Namespace, folder: Path) -> None:
    skip = set(given.skip.split(","))
    managers = {"DataManager": mobula, "plain Ray actors": plain}
    fs = mobula.deployment.fsspec(replication=COPIES)
    for _ in range(given.rounds):
        if "whole" not in skip:
            whole(table, 64 * MIB, managers, fs, folder)
        if "big" not in skip:
            whole(table, given.big * MIB, managers, fs, folder)
        if "small" not in skip:
            small(table, managers)
        if "heal" not in skip and not given.local:
            heal(table, mobula)
        if "train" not in skip:
            checkpoints(table, given.big * MIB, folder, fs)
    memory = sum(ray.get([space.bytes_of_memory.remote() for space in plain.spaces]))
    table.note("memory afterwards", "plain Ray actors", memory / MIB, "MiB")


def on_ray(table: Table, given: argparse.Namespace, folder: Path) -> None:
    options: dict[str, Any] = {
        "volumes": folder / "spaces",
        "namenode_dir": folder / "namenode",
        "spaces_per_node": SPACES,
        "claim_limit": 10,
    }
    for round_ in range(given.rounds):
        began = time.perf_counter()
        mobulafs.ray.start("bench", **options)
        table.note("start on a running Ray, 4 spaces", "Mobula", time.perf_counter() - began, "s")
        if round_ + 1 < given.rounds:
            mobulafs.ray.stop("bench")
    try:
        mobula = DataManager(replication_factor=COPIES, cluster="bench")
        rounds(table, mobula, PlainManager(), given, folder)
        status = mobulafs.ray.status("bench")
        table.note("memory afterwards", "NameNode", resident(status.namenode["pid"]) / MIB, "MiB")
        spaces = sum(resident(space["pid"]) for space in status.spaces)
        table.note("memory afterwards", "4 DataNodes together", spaces / MIB, "MiB")
    finally:
        mobulafs.ray.stop("bench")


def on_local(table: Table, given: argparse.Namespace, folder: Path) -> None:
    with mobulafs.local(datanodes=SPACES, dir=folder / "cluster") as cluster:
        where = mobulafs.ray.Deployment("local", cluster.host, cluster.port, cluster.status_url or "")
        mobula = DataManager(replication_factor=COPIES, cluster=where)
        rounds(table, mobula, PlainManager(), given, folder)
        table.note("memory afterwards", "all servers, one process", resident(cluster.pid) / MIB, "MiB")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--big", type=int, default=1024, help="MiB of the large artifact and of the checkpoint")
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments.add_argument("--skip", default="", help="of: whole, big, small, heal, train")
    arguments.add_argument("--local", action="store_true", help="all servers in one process, without supervisors")
    given = arguments.parse_args()
    table = Table()
    ray.init(
        address="local",
        _node_ip_address="127.0.0.2",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    with tempfile.TemporaryDirectory(prefix="mobula-bench-", dir=given.folder) as name:
        (on_local if given.local else on_ray)(table, given, Path(name))
        ray.shutdown()
    table.show()
    disk = subprocess.run(["df", "--output=fstype", given.folder], capture_output=True, text=True).stdout.split()[-1]
    print(f"\n{os.cpu_count()} cores, load average {os.getloadavg()[1]:.1f} over 5 minutes, {disk}")


if __name__ == "__main__":
    main()
