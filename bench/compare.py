#!/usr/bin/env python3
"""Runs the same load against real Apache HDFS and against Mobula, interleaved, and writes a table.

Both clusters (1 NameNode, 3 DataNodes, separate processes on loopback, data on the same disk) are up
for the whole run; each round measures first one, then the other, then the other way round. The load
comes from `mobula bench` and, for files, also from `hdfs-native`, a client that neither side wrote.

    compare.py --tools ../shared/bench/hdfs --out table.md

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

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
READY_LIMIT_S = 60
PARTS = ("start", "metadata", "data", "small", "connections")


def main():
    args = arguments()
    sys.path.insert(0, str(args.tools))
    sys.dont_write_bytecode = True
    import hdfsbench

    work = pathlib.Path(tempfile.mkdtemp(prefix="mobula-compare-", dir=args.work))
    sides = [Apache(hdfsbench), Mobula(args.mobula, work)]
    for side in sides:
        side.load = args.mobula
    results = Results()
    try:
        for side in sides:
            side.start(results)
        if "start" in args.parts:
            time.sleep(args.idle)
            for side in sides:
                side.idle(results, args.idle)
        for part in (part for part in args.parts if part != "start"):
            for round_number in range(-args.warm_up, args.rounds):
                order = sides if round_number % 2 == 0 else sides[::-1]
                for side in order:
                    subprocess.run(["sync"], check=True)  # one side's write-back is not the other's
                    rows = measure(part, side, args)
                    if round_number >= 0:
                        results.add(part, side.name, rows)
                    print(f"{part} round {round_number} {side.name}: done", file=sys.stderr, flush=True)
    finally:
        for side in sides:
            side.stop()
        shutil.rmtree(work, ignore_errors=True)
    text = results.markdown(args)
    if args.out:
        args.out.write_text(text)
    print(text)


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that are not counted, for the JVM's compiler")
    parser.add_argument("--ops", type=int, default=40_000, help="metadata operations of each kind")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--size", default="1g", help="of the large file")
    parser.add_argument("--files", type=int, default=1000, help="small files, of 100,000 bytes")
    parser.add_argument("--idle", type=float, default=10, help="seconds of rest before idle memory is read")
    parser.add_argument("--idle-connections", type=int, default=2000)
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
        results.add("start", self.name, [{"name": "launch -> a file with 3 replicas", "seconds": seconds, "cpu_seconds": used}])

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

    def __init__(self, hdfsbench):
        # Small test disks: 3.4.1+ wants a GiB to spare on a volume.
        spare = {"dfs.datanode.round-robin-volume-choosing-policy.additional-available-space": 0}
        # Acknowledged means synced, as it does on the other side.
        self.cluster = hdfsbench.Cluster("compare", dn_conf={"dfs.datanode.synconclose": "true", **spare})
        self.uri = hdfsbench.FS

    def launch(self):
        self.cluster.start()
        self.cluster.wait_ready()
        self.namenode = self.cluster.nn.pid
        self.datanodes = [process.pid for process in self.cluster.dn.values()]

    def start(self, results):
        self.cluster.wipe()
        self.cluster.format()
        super().start(results)

    def stop(self):
        self.cluster.stop()
        self.cluster.wipe()


class Mobula(Side):
    name = "Mobula"

    def __init__(self, binary, work):
        self.binary, self.work, self.processes = binary, work, []

    def spawn(self, name, arguments):
        log = open(self.work / f"{name}.log", "wb")
        command = [str(self.binary), *arguments, "--until-stdin-closes"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.processes.append(process)
        return process

    def ready(self, process, name):
        line = process.stdout.readline().decode()
        if not line.startswith("ready "):
            raise RuntimeError(f"{name} did not start: {(self.work / f'{name}.log').read_text()[-2000:]}")
        return line.split()[1]

    def launch(self):
        self.work.mkdir(exist_ok=True)
        namenode = self.spawn("namenode", ["namenode", "--dir", str(self.work / "name"), "--listen", "127.0.0.1:0"])
        self.uri = self.ready(namenode, "namenode")
        address = self.uri.removeprefix("hdfs://")
        nodes = [
            self.spawn(f"datanode{i}", ["datanode", "--dir", str(self.work / f"data{i}"), "--namenode", address,
                                        "--listen", "127.0.0.1:0", "--ipc-listen", "127.0.0.1:0"])
            for i in range(3)
        ]
        for i, node in enumerate(nodes):
            self.ready(node, f"datanode{i}")
        self.namenode, self.datanodes = namenode.pid, [node.pid for node in nodes]

    def stop(self):
        for process in self.processes[::-1]:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()



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
    if part == "metadata":
        return bench(side, ["metadata", "--ops", str(args.ops), "--in-flight", str(args.in_flight)])
    if part == "data":
        return bench(side, ["data", "--size", args.size, "--rounds", "1"]) + native(side, args, "data")
    if part == "small":
        return bench(side, ["small", "--files", str(args.files), "--rounds", "1"]) + native(side, args, "small")
    return bench(side, ["connections", "--count", str(args.idle_connections)])


# What is shown of a row: key, heading, digits, whether more is better (None: no ratio).
FIGURES = (
    ("seconds", "s", 2, False),
    ("per_second", "ops/s", 0, True),
    ("mb_per_second", "MB/s", 0, True),
    ("p50_us", "p50 us", 0, False),
    ("p99_us", "p99 us", 0, False),
    ("p999_us", "p99.9 us", 0, False),
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
}


class Results:
    """Values by part, row name, figure and side; a list each, one value a round."""

    def __init__(self):
        self.values = {}

    def add(self, part, side, rows):
        for row in rows:
            for key, value in row.items():
                if key != "name" and isinstance(value, (int, float)):
                    self.values.setdefault((part, row["name"], key), {}).setdefault(side, []).append(value)

    def markdown(self, args):
        lines = [
            "# Mobula beside Apache HDFS",
            "",
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}. "
            f"Medians of {args.rounds} rounds, interleaved (in brackets: least to most); ratio: how much better Mobula is.",
            "Apache's DataNodes run with dfs.datanode.synconclose: what a close acknowledges is on disk on both sides.",
        ]
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
            text += f" ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
        return text

    ratio = ""
    if more is not None and by_side.get("HDFS") and by_side.get("Mobula"):
        theirs, ours = statistics.median(by_side["HDFS"]), statistics.median(by_side["Mobula"])
        better, base = (ours, theirs) if more else (theirs, ours)
        ratio = f"{better / base:.1f}" if base else ""
    return f"| {name} | {heading} | {cell('HDFS')} | {cell('Mobula')} | {ratio} |"


if __name__ == "__main__":
    main()
