#!/usr/bin/env python3
"""Runs the same load against real Apache HDFS and against Mobula, interleaved, and writes a table.

Both clusters (1 NameNode, 3 DataNodes, separate processes on loopback, data on the same disk) are up for the whole run;
each round measures first one, then the other, then the other way round. The load comes from `mobula bench` and, for
files, also from `hdfs-native`, a client that neither side wrote. What kills DataNodes comes last, with four of them.

    compare.py --tools ../shared/bench/hdfs --out table.md

takes about 20 minutes on two cores. A part that fails is named in the table, the others go on.

Takes:
  --tools DIR     folder with hdfsbench.py (its Cluster starts Apache's servers) [$HDFS_BENCH_TOOLS]
  $HDFS_BENCH_HOME  where the jars are and Apache's data goes (see hdfsbench.py)
  --mobula FILE   the binary [target/release/mobula beside this folder]
  --python FILE   a Python with hdfs_native [$HDFS_BENCH_HOME/venv/bin/python; skipped if it is missing]

Standard library only. Ends only the processes that it started.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
# In this order. Those that kill DataNodes have clusters of their own.
CALM = ("start", "command", "metadata", "data", "small", "connections", "flush", "abandoned")
KILLS = ("loss", "heal")
PARTS = CALM + KILLS
READY_LIMIT_S = 60
# A part with few rounds is slow, or its figure does not move.
ROUNDS_MOST = {"connections": 2, "flush": 2, "abandoned": 1, "loss": 2, "heal": 1}
WARM_UP = ("metadata", "data", "small", "flush")
# What makes Apache's NameNode notice and heal as fast as it can: without it a dead node is noticed after 630 s.
TUNED_NAMENODE = {
    "dfs.heartbeat.interval": 1,
    "dfs.namenode.heartbeat.recheck-interval": 1000,
    "dfs.namenode.replication.work.multiplier.per.iteration": 100,
    "dfs.namenode.replication.max-streams": 20,
    "dfs.namenode.replication.max-streams-hard-limit": 40,
    "dfs.namenode.redundancy.interval.seconds": 1,
}
TUNED_DATANODE = {"dfs.heartbeat.interval": 1}
# From a DataNode's port answering to its NameNode placing blocks on it.
REVIVAL_S = 4


def main():
    args = arguments()
    sys.path.insert(0, str(args.tools))
    sys.dont_write_bytecode = True
    import hdfsbench

    work = pathlib.Path(tempfile.mkdtemp(prefix="mobula-compare-", dir=args.work))
    results = Results(args)
    try:
        calm = [part for part in CALM if part in args.parts]
        if calm:
            sides = [Apache(hdfsbench, args), Mobula(args, work / "calm")]
            compare(args, results, sides, calm)
        kills = [part for part in KILLS if part in args.parts]
        if kills:
            tuned = args.apache_heals == "tuned"
            sides = [Apache(hdfsbench, args, datanodes=4, tuned=tuned), Mobula(args, work / "kills", datanodes=4)]
            compare(args, results, sides, kills)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        results.write()
    print(results.markdown())
    return 1 if results.failures else 0


def compare(args, results, sides, parts):
    """Starts both sides, measures the parts, and ends both sides."""
    try:
        starts = args.starts if "start" in parts else 1
        for side in sides:
            for start in range(starts):
                side.start(results if "start" in parts else None)
                if start + 1 < starts:
                    side.stop()
        for part in parts:
            began = time.monotonic()
            try:
                one_part(args, results, sides, part)
            except Exception as error:  # the others are still worth having
                traceback.print_exc()
                results.failures.append(f"{part}: {error}")
            results.write()
            say(f"{part} took {time.monotonic() - began:.0f} s")
    finally:
        for side in sides:
            side.stop()
            side.wipe()


def one_part(args, results, sides, part):
    if part == "start":
        time.sleep(args.idle)
        for side in sides:
            side.idle(results, args.idle)
        return
    warm_up = args.warm_up if part in WARM_UP else 0
    for round_number in range(-warm_up, min(args.rounds, ROUNDS_MOST.get(part, args.rounds))):
        for side in sides if round_number % 2 == 0 else sides[::-1]:
            subprocess.run(["sync"], check=True)  # one side's write-back is not the other's
            rows = measure(part, side, args)
            if round_number >= 0:
                results.add(part, side.name, rows)
            say(f"{part} round {round_number} {side.name}: done")


def say(words):
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools = os.environ.get("HDFS_BENCH_TOOLS")
    home = os.environ.get("HDFS_BENCH_HOME")
    python = pathlib.Path(home) / "venv/bin/python" if home else None
    parser.add_argument("--tools", type=pathlib.Path, default=tools, required=tools is None)
    parser.add_argument("--mobula", type=pathlib.Path, default=HERE.parent / "target/release/mobula")
    parser.add_argument("--python", type=pathlib.Path, default=python)
    parser.add_argument("--work", type=pathlib.Path, help="folder for Mobula's data [the system's temporary one]")
    parser.add_argument("--out", type=pathlib.Path, help="write the table here, too")
    parser.add_argument("--parts", default=",".join(PARTS), help="of: " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="at most; slow parts take fewer")
    parser.add_argument("--starts", type=int, default=3, help="how often each side is launched for part start")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that are not counted, for the JVM's compiler")
    parser.add_argument("--ops", type=int, default=40_000, help="metadata operations of each kind")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--size", default="1g", help="of the large file")
    parser.add_argument("--files", type=int, default=1000, help="small files, of 100,000 bytes")
    parser.add_argument("--idle", type=float, default=10, help="seconds of rest before idle memory is read")
    parser.add_argument("--idle-connections", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=5, help="of `fs -ls /`")
    parser.add_argument("--records", type=int, default=1000, help="records that are flushed, of each kind")
    parser.add_argument("--abandoned", type=int, default=1000, help="files closed by lease recovery")
    parser.add_argument("--heal-size", default="4g", help="of the file that is healed")
    parser.add_argument("--apache-heals", choices=("tuned", "default"), default="tuned",
                        help="with keys set so that it notices in 12 s, or as it comes (12 minutes more)")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown parts {unknown}, there are {PARTS}")
    if not args.mobula.exists():
        parser.error(f"{args.mobula} is missing: cargo build --release")
    args.tools = args.tools.resolve()
    if not (args.tools / "hdfsbench.py").exists():
        parser.error(f"no hdfsbench.py in {args.tools}")
    return args


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Side:
    """One of the two clusters; `load` is the load generator. Subclasses set `uri`, `namenode` (pid) and `datanodes` (pids)."""

    def start(self, results):
        started = time.perf_counter()
        self.launch()
        self.first_file()
        seconds = time.perf_counter() - started
        used = sum(map(cpu_seconds, [self.namenode, *self.datanodes]))
        row = {"name": "launch -> a file with 3 replicas", "seconds": seconds, "cpu_seconds": used}
        if results:
            results.add("start", self.name, [row])

    def first_file(self):
        """Every DataNode is registered: one small file with three replicas goes in and comes back."""
        bench(self, ["small", "--files", "1", "--size", "1000", "--rounds", "1"])

    def idle(self, results, seconds):
        pids = [self.namenode, *self.datanodes]
        before = sum(map(cpu_seconds, pids))
        time.sleep(seconds)
        used = sum(map(cpu_seconds, pids)) - before
        row = {"name": "idle", "resident_mib": sum(map(resident_mib, pids)), "idle_cpu_percent": used / seconds * 100}
        results.add("start", self.name, [row])


class Apache(Side):
    name = "HDFS"

    def __init__(self, hdfsbench, args, datanodes=3, tuned=False):
        self.tools, self.load = hdfsbench, args.mobula
        # Small test disks: 3.4.1+ wants a GiB to spare on a volume.
        spare = {"dfs.datanode.round-robin-volume-choosing-policy.additional-available-space": 0}
        # Acknowledged means synced, as it does on the other side.
        self.cluster = hdfsbench.Cluster(
            "compare", dns=datanodes, nn_conf=TUNED_NAMENODE if tuned else {},
            dn_conf={"dfs.datanode.synconclose": "true", **spare, **(TUNED_DATANODE if tuned else {})})
        self.uri = hdfsbench.FS

    def launch(self):
        self.cluster.start()
        self.cluster.wait_ready()
        self.look()

    def look(self):
        self.namenode = self.cluster.nn.pid
        self.datanodes = [process.pid for process in self.cluster.dn.values()]

    def start(self, results):
        if self.tools.port_open(self.tools.NN_RPC) or self.tools.port_open(self.tools.NN_HTTP):
            raise RuntimeError(f"somebody listens on Apache's ports: set NN_RPC ({self.tools.NN_RPC}), NN_HTTP, DN_BASE")
        self.cluster.wipe()
        self.cluster.format()
        super().start(results)

    def list_root(self):
        wall, cpu, _ = self.cluster.shell("-ls", "/")
        return wall, cpu

    def revive(self):
        """Starts the DataNodes again that were killed."""
        dead = [index for index, process in self.cluster.dn.items() if process.poll() is not None]
        for index in dead:
            self.cluster.start_dn(index)
        for index in dead:
            wait_until(lambda: self.tools.port_open(self.tools.DN_BASE + 10 * index), "a DataNode to come back")
        if dead:
            time.sleep(REVIVAL_S)
        self.look()

    def stop(self):
        self.cluster.stop()

    def wipe(self):
        self.cluster.wipe()


class Mobula(Side):
    name = "Mobula"

    def __init__(self, args, work, datanodes=3):
        self.binary, self.load, self.work, self.count = args.mobula, args.mobula, work, datanodes
        self.processes, self.nodes, self.address = [], {}, None

    def spawn(self, name, arguments):
        log = open(self.work / f"{name}.log", "ab")
        command = [str(self.binary), *arguments, "--until-stdin-closes"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.processes.append(process)
        return process

    def ready(self, process, name):
        line = process.stdout.readline().decode()
        if not line.startswith("ready "):
            raise RuntimeError(f"{name} did not start: {(self.work / f'{name}.log').read_text()[-2000:]}")
        return line.split()[1]

    def spawn_node(self, index):
        data = str(self.work / f"data{index}")
        self.nodes[index] = self.spawn(f"datanode{index}", ["datanode", "--dir", data, "--namenode", self.address,
                                                           "--listen", "127.0.0.1:0", "--ipc-listen", "127.0.0.1:0"])

    def launch(self):
        self.wipe()
        self.work.mkdir(parents=True)
        namenode = self.spawn("namenode", ["namenode", "--dir", str(self.work / "name"), "--listen", "127.0.0.1:0"])
        self.uri = self.ready(namenode, "namenode")
        self.address = self.uri.removeprefix("hdfs://")
        for index in range(self.count):
            self.spawn_node(index)
        for index, node in self.nodes.items():
            self.ready(node, f"datanode{index}")
        self.namenode = namenode.pid
        self.look()

    def look(self):
        self.datanodes = [node.pid for node in self.nodes.values()]

    def list_root(self):
        command = [str(self.binary), "fs", "-ls", f"{self.uri}/"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}")
        return time.perf_counter() - started, used.ru_utime + used.ru_stime

    def revive(self):
        """Starts the DataNodes again that were killed."""
        dead = [index for index, node in self.nodes.items() if node.poll() is not None]
        for index in dead:
            self.spawn_node(index)
            self.ready(self.nodes[index], f"datanode{index}")
        if dead:
            time.sleep(REVIVAL_S)
        self.look()

    def stop(self):
        for process in self.processes[::-1]:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes, self.nodes = [], {}

    def wipe(self):
        shutil.rmtree(self.work, ignore_errors=True)


def wait_until(holds, what):
    deadline = time.monotonic() + READY_LIMIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {READY_LIMIT_S} s in vain for {what}")
        time.sleep(0.05)


def bench(side, arguments):
    """One run of `mobula bench`, as rows."""
    command = [str(side.load), "bench", "--json", "--namenode", side.uri, "--server-pid", str(side.namenode),
               "--datanode-pid", ",".join(map(str, side.datanodes)), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')[-3000:]}")
    return json.loads(done.stdout)


def native(side, args, what):
    """One run of native.py: the same files by hdfs-native."""
    if not args.python or not args.python.exists():
        return []
    command = [str(args.python), str(HERE / "native.py"), side.uri, what, args.size, str(args.files)]
    pids = [side.namenode, *side.datanodes]
    rows = []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for line in process.stdout:
        event = json.loads(line)
        if event == "ready":  # about to begin one thing: read the servers' clocks
            before = [cpu_seconds(pid) for pid in pids]
        else:
            after = [cpu_seconds(pid) for pid in pids]
            used = [b - a for a, b in zip(before, after)]
            event["namenode_cpu_s"], event["datanodes_cpu_s"] = used[0], sum(used[1:])
            rows.append(event)
        process.stdin.write(b"\n")
        process.stdin.flush()
    if process.wait():
        raise RuntimeError(f"native.py failed on {side.name}")
    for row in rows:
        row["name"] = "hdfs-native: " + row["name"]
        if "bytes" in row:
            row["mb_per_second"] = row["bytes"] / 1e6 / row["seconds"]
            row["datanodes_s_per_gb"] = row["datanodes_cpu_s"] / (row.pop("bytes") / 1e9)
    return rows


def measure(part, side, args):
    if part == "command":
        calls = [side.list_root() for _ in range(args.calls)]
        return [{"name": "fs -ls /", "seconds": wall, "cpu_seconds": cpu} for wall, cpu in calls]
    if part == "metadata":
        return bench(side, ["metadata", "--ops", str(args.ops), "--in-flight", str(args.in_flight)])
    if part == "data":
        return bench(side, ["data", "--size", args.size, "--rounds", "1"]) + native(side, args, "data")
    if part == "small":
        own = bench(side, ["small", "--files", str(args.files), "--rounds", "1", "--keep"])
        return own + native(side, args, "small")
    if part == "connections":
        return bench(side, ["connections", "--count", str(args.idle_connections)])
    if part == "flush":
        return bench(side, ["flush", "--records", str(args.records)])
    if part == "abandoned":
        return bench(side, ["abandoned", "--files", str(args.abandoned)])
    try:
        if part == "loss":
            return bench(side, ["loss", "--size", args.size, "--calm", "2"])
        return bench(side, ["heal", "--size", args.heal_size])
    finally:
        side.revive()


# What is shown of a row: key, heading, digits, whether more is better (None: no ratio).
FIGURES = (
    ("seconds", "s", 2, False),
    ("per_second", "ops/s", 0, True),
    ("mb_per_second", "MB/s", 0, True),
    ("p50_us", "p50 us", 0, False),
    ("p99_us", "p99 us", 0, False),
    ("p999_us", "p99.9 us", 0, False),
    ("stall_ms", "longest stall, ms", 0, False),
    ("server_us", "NameNode CPU us/op", 1, False),
    ("datanodes_us", "DataNodes CPU us/op", 0, False),
    ("datanodes_s_per_gb", "DataNodes CPU s/GB", 2, False),
    ("cpu_seconds", "CPU s", 2, False),
    ("namenode_cpu_s", "NameNode CPU s", 2, False),
    ("datanodes_cpu_s", "DataNodes CPU s", 2, False),
    ("own_cpu_s", "client CPU s", 2, None),
    ("resident_mib", "resident MiB", 0, False),
    ("idle_cpu_percent", "CPU % of a core", 1, False),
    ("server_resident", "NameNode resident bytes", 0, False),
    ("own_percent", "load generator's share of the CPU, %", 0, None),
)
# Figures that only repeat another one of the same row, by part.
HIDDEN = {
    "metadata": {"seconds", "datanodes_us"},
    "data": {"datanodes_us", "server_us"},
    "small": {"datanodes_s_per_gb", "mb_per_second"},
    "connections": {"seconds", "datanodes_us"},
    "flush": {"seconds"},
}


class Results:
    """Values by part, row name, figure and side; a list each, one value a round."""

    def __init__(self, args):
        self.args, self.values, self.failures, self.began = args, {}, [], time.monotonic()

    def add(self, part, side, rows):
        for row in rows:
            for key, value in row.items():
                if key != "name" and isinstance(value, (int, float)):
                    self.values.setdefault((part, row["name"], key), {}).setdefault(side, []).append(value)

    def write(self):
        if self.args.out:
            self.args.out.write_text(self.markdown())

    def markdown(self):
        args = self.args
        lines = [
            "# Mobula beside Apache HDFS",
            "",
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, "
            f"{(time.monotonic() - self.began) / 60:.0f} minutes. Medians, interleaved (in brackets: how many, least to "
            "most); ratio: how much better Mobula is.",
            "Apache's DataNodes run with dfs.datanode.synconclose: what a close acknowledges is on disk on both sides.",
        ]
        if args.apache_heals == "tuned":
            tuned = ", ".join(f"{key}={value}" for key, value in TUNED_NAMENODE.items())
            lines.append(f"For {' and '.join(KILLS)} Apache's servers are tuned: {tuned}. By default they notice after 630 s.")
        lines += ["", *(f"**Failed**: {failure}" for failure in self.failures)]
        for part in PARTS:
            names = list(dict.fromkeys(name for p, name, _ in self.values if p == part))
            if not names:
                continue
            lines += ["", f"## {part}", "", "| what | figure | HDFS | Mobula | ratio |", "|---|---|---|---|---|"]
            for name in names:
                for key, heading, digits, more in FIGURES:
                    by_side = self.values.get((part, name, key))
                    if by_side and key not in HIDDEN.get(part, ()):
                        lines.append(line(name, heading, by_side, digits, more))
        return "\n".join(lines) + "\n"


def line(name, heading, by_side, digits, more):
    def cell(side):
        values = by_side.get(side)
        if not values:
            return ""
        text = f"{statistics.median(values):,.{digits}f}"
        if len(values) > 1:
            text += f" ({len(values)}: {min(values):,.{digits}f} to {max(values):,.{digits}f})"
        return text

    ratio = ""
    if more is not None and by_side.get("HDFS") and by_side.get("Mobula"):
        theirs, ours = statistics.median(by_side["HDFS"]), statistics.median(by_side["Mobula"])
        better, base = (ours, theirs) if more else (theirs, ours)
        ratio = f"{better / base:.1f}" if base else ""
    return f"| {name} | {heading} | {cell('HDFS')} | {cell('Mobula')} | {ratio} |"


if __name__ == "__main__":
    sys.exit(main())
