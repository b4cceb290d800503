"""HBase on a NameNode and three DataNodes of ours: rows written, flushed, compacted and snapshotted, while everything is killed.

    judge.py BINARY CLASS_PATH [PROVIDER | PART OF A TITLE]...

HMaster, a region server and ZooKeeper are one process, as HBase starts itself for one machine, but with its files on our
cluster. A client beside it (Rows.java) knows which rows were acknowledged: those must be there whatever was killed.
HBASE_LOGS=FOLDER keeps the logs. Prints a line a case, and how many passed; exits with 0 only if all did.
"""

import os
import pathlib
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apache"))

from cluster import JAVA, LOG4J, Cluster, Process, Tools, Wrong, free_ports, wait_until

START_S_MAX = 180
# `filesystem` is FSHLog, on Hadoop's own output stream; `asyncfs` writes one block to three DataNodes by itself.
PROVIDERS = ["asyncfs", "filesystem"]
MORE_JAVA = ["--add-opens", "java.base/jdk.internal.ref=ALL-UNNAMED", "--add-exports", "java.base/jdk.internal.misc=ALL-UNNAMED",
             "--add-exports", "java.security.jgss/sun.security.krb5=ALL-UNNAMED"]
SERVER = {
    "hbase.cluster.distributed": "false",
    # HBase refuses a file system that does not promise hflush and hsync.
    "hbase.unsafe.stream.capability.enforce": "true",
    "hbase.regionserver.handler.count": 6,
    "hbase.master.info.port": -1,
    "hbase.regionserver.info.port": -1,
    # Small, so that files are flushed and compacted and logs rolled while rows come in.
    "hbase.hregion.memstore.flush.size": 1 << 20,
    "hbase.regionserver.hlog.blocksize": 2 << 20,
    "hbase.hstore.blockingStoreFiles": 50,
    "hbase.master.hfilecleaner.ttl": 1000,
    "hbase.master.logcleaner.ttl": 1000,
    "hbase.master.cleaner.interval": 5000,
    # A pipeline that cannot be made whole goes on with what is left: there are but three DataNodes.
    "dfs.client.block.write.replace-datanode-on-failure.best-effort": "true",
    "dfs.replication": 3,
    # A NameNode that is started again is a matter of seconds. Without this, Hadoop's client tries once, and HBase ends itself.
    "dfs.client.retry.policy.enabled": "true",
    "dfs.client.retry.policy.spec": "300,100",
}
CLIENT = {
    "hbase.client.retries.number": 300,
    "hbase.client.pause": 100,
    "hbase.client.operation.timeout": 240000,
    "hbase.client.meta.operation.timeout": 240000,
    "hbase.rpc.timeout": 20000,
}


class HBase:
    """One process of it; its folder in the cluster and ZooKeeper's on the local disk outlive that."""

    def __init__(self, cluster, class_path, provider):
        self.cluster, self.class_path = cluster, class_path
        self.folder = cluster.folder / "hbase"
        master, region, self.zookeeper = free_ports(3)
        settings = SERVER | {
            "fs.defaultFS": cluster.uri,
            "hbase.rootdir": f"{cluster.uri}/hbase",
            "hbase.wal.provider": provider,
            "hbase.tmp.dir": self.folder / "tmp",
            "hbase.zookeeper.quorum": "127.0.0.1",
            "hbase.zookeeper.property.clientPort": self.zookeeper,
            "hbase.master.port": master, "hbase.regionserver.port": region,
            "hbase.master.hostname": "localhost", "hbase.unsafe.regionserver.hostname": "localhost",
            "hbase.master.ipc.address": "127.0.0.1", "hbase.regionserver.ipc.address": "127.0.0.1",
        }
        self.folder.mkdir(exist_ok=True)
        rows = "".join(f"<property><name>{key}</name><value>{value}</value></property>\n" for key, value in settings.items())
        (self.folder / "hbase-site.xml").write_text(f"<configuration>\n{rows}</configuration>\n")
        (self.folder / "log4j.properties").write_text(LOG4J)

    def start(self):
        command = [*JAVA, "-Xmx768m", *MORE_JAVA, "-cp", f"{self.folder}:{self.class_path}",
                   "org.apache.hadoop.hbase.master.HMaster", "start"]
        self.process = self.cluster.keep(Process(command, self.cluster.folder / "hbase.log"))

    def wait_up(self):
        wait_until("HBase is up", self.is_up, START_S_MAX)

    def is_up(self):
        if not self.process.alive():
            raise RuntimeError(f"HBase ended:\n{self.process.lines(60)}")
        return self.process.has_logged("Master has completed initialization")


def client_of(class_path):
    """What starts Rows.java; where ZooKeeper is stands in HBase's folder."""
    settings = [f"{key}={value}" for key, value in CLIENT.items()]
    return lambda cluster: [*JAVA, "-cp", f"{cluster.hbase.folder}:{class_path}", "Rows", *settings]


class Writers:
    """Rows that come in while something happens; what was acknowledged is checked behind it."""

    def __init__(self, cluster, table, first, end):
        self.cluster, self.table, self.rows = cluster, table, cluster.rows
        self.rows("begin", table, first, end)

    def acknowledged(self):
        return int(self.rows("acknowledged"))

    def wait(self, more, limit_s=120):
        """Until so many more rows were acknowledged."""
        least = self.acknowledged() + more
        began = time.monotonic()
        wait_until(f"{least} rows are acknowledged", lambda: self.acknowledged() >= least or self.has_ended(), limit_s)
        return time.monotonic() - began

    def has_ended(self):
        return self.rows("ended") == "true"

    def finish(self, limit_s=240):
        wait_until("all rows are written", self.has_ended, limit_s)

    def end(self):
        self.rows("end")
        self.finish()


def check(cluster, table, least=0):
    """Every acknowledged row is there and right."""
    rows = int(cluster.rows("check", table))
    if rows < least:
        raise Wrong(f"{table} has {rows} rows, less than {least}")
    cluster.counted[table] = rows
    return rows


def stored(cluster):
    """50,000 rows with flushes, rolls of the log and compactions."""
    rows = cluster.rows
    rows("create", "stored")
    writers = Writers(cluster, "stored", 0, 50_000)
    for _ in range(4):
        writers.wait(9_000)
        rows("flush", "stored")
        rows("roll")
    writers.finish()
    check(cluster, "stored", 50_000)
    rows("flush", "stored")
    before = int(rows("files", "stored"))
    rows("compact", "stored")
    wait_until("one file a region", lambda: int(rows("files", "stored")) == 3)
    check(cluster, "stored", 50_000)
    cluster.note(f"{before} files compacted to 3, locality {rows('locality', 'stored')}")
    if float(rows("locality", "stored")) != 1:
        raise Wrong(f"locality is {rows('locality', 'stored')}")


def snapshots(cluster):
    """HBase's own snapshots: references and renames of files; what is dropped goes by way of the archive."""
    rows = cluster.rows
    rows("snapshot", "stored", "first")
    rows("clone", "copied", "first")
    check(cluster, "copied", 50_000)
    rows("truncate", "stored")
    if int(rows("count", "stored")) != 0:
        raise Wrong("a truncated table has rows")
    rows("disable", "stored")
    rows("restore", "stored", "first")
    rows("enable", "stored")
    check(cluster, "stored", 50_000)
    rows("drop", "copied")
    del cluster.counted["copied"]
    rows("forget", "first")
    check(cluster, "stored", 50_000)
    names = lambda: [line.split()[-1] for line in cluster.fs("-ls", "-R", "/hbase/archive/data").decode().splitlines()]
    wait_until("the cleaner emptied the archive of the dropped table",
               lambda: not any("/copied/" in name and "/f/" in name for name in names()))


def node_killed(cluster):
    """A DataNode is killed under puts, and comes back."""
    rows = cluster.rows
    rows("create", "node")
    writers = Writers(cluster, "node", 0, 400_000)
    waits = []
    for at in (0, 1):
        writers.wait(2_000)
        cluster.kill_node(at)
        waits.append(writers.wait(2_000))
        writers.wait(2_000)
        rows("flush", "node")
        cluster.start_node(at)
        cluster.wait_registered(at)
    writers.wait(2_000)
    writers.end()
    cluster.note(f"{check(cluster, 'node')} rows; 2,000 of them took {', '.join(f'{wait:.1f}' for wait in waits)} s at the kill")


def namenode_killed(cluster):
    """The NameNode is killed under puts, and started again on its port."""
    rows = cluster.rows
    rows("create", "name")
    writers = Writers(cluster, "name", 0, 400_000)
    for _ in range(2):
        writers.wait(2_000)
        cluster.namenode.kill()
        time.sleep(1)
        cluster.start_namenode()
        rows("flush", "name")
        rows("roll")
        writers.wait(2_000)
    writers.end()
    cluster.note(f"{check(cluster, 'name')} rows")


def node_paused(cluster):
    """A DataNode says nothing for a while, but is not gone: HBase's writer waits for it, or leaves it out."""
    rows = cluster.rows
    rows("create", "paused")
    writers = Writers(cluster, "paused", 0, 400_000)
    writers.wait(2_000)
    cluster.nodes[2].pause()
    took = writers.wait(2_000, 240)
    cluster.nodes[2].go_on()
    writers.wait(2_000)
    writers.end()
    cluster.note(f"{check(cluster, 'paused')} rows; 2,000 of them took {took:.1f} s at the pause")


def hbase_killed(cluster):
    """HBase is killed under puts, and started again: its logs' leases are recovered, the logs split and replayed."""
    rows = cluster.rows
    rows("create", "self")
    writers = Writers(cluster, "self", 0, 400_000)
    times = []
    for _ in range(2):
        writers.wait(3_000)
        cluster.hbase.process.kill()
        began = time.monotonic()
        cluster.hbase.start()
        cluster.hbase.wait_up()
        writers.wait(1_000, 240)
        times.append(time.monotonic() - began)
    writers.end()
    cluster.note(f"{check(cluster, 'self')} rows; {', '.join(f'{t:.0f}' for t in times)} s from each kill to more rows")


def hbase_and_node_killed(cluster):
    """Both at once, and the DataNode stays away: what one of three replicas is missing of is recovered."""
    rows = cluster.rows
    rows("create", "both")
    writers = Writers(cluster, "both", 0, 400_000)
    writers.wait(3_000)
    cluster.nodes[1].child.kill()
    cluster.hbase.process.kill()
    cluster.kill_node(1)
    began = time.monotonic()
    cluster.hbase.start()
    cluster.hbase.wait_up()
    writers.wait(1_000, 240)
    took = time.monotonic() - began
    writers.end()
    cluster.note(f"{check(cluster, 'both')} rows; {took:.0f} s from the kill to more rows")
    cluster.start_node(1)
    cluster.wait_registered(1)


def all_killed(cluster):
    """HBase, the NameNode and every DataNode at once."""
    rows = cluster.rows
    rows("create", "all")
    writers = Writers(cluster, "all", 0, 400_000)
    writers.wait(3_000)
    for process in (cluster.hbase.process, cluster.namenode, *cluster.nodes):
        process.child.kill()
    for process in (cluster.hbase.process, cluster.namenode, *cluster.nodes):
        process.kill()
    cluster.start_namenode()
    for at in range(len(cluster.nodes)):
        cluster.start_node(at)
    cluster.wait_registered()
    cluster.hbase.start()
    cluster.hbase.wait_up()
    writers.wait(1_000, 240)
    writers.end()
    cluster.note(f"{check(cluster, 'all')} rows")


def all_there(cluster):
    """All tables once more, after all of it: HBase's cleaner, healing and further recoveries took nothing away."""
    for table, rows in cluster.counted.items():
        seen = int(cluster.rows("count", table))
        if seen < rows:
            raise Wrong(f"{table} has {seen} rows, not {rows}")
        cluster.note(f"{table} {seen}")


CASES = [("rows written, flushed and compacted", stored), ("snapshots, clones and the archive", snapshots),
         ("a DataNode killed", node_killed), ("a DataNode paused", node_paused), ("the NameNode killed", namenode_killed),
         ("HBase killed", hbase_killed), ("HBase and a DataNode killed", hbase_and_node_killed),
         ("everything killed at once", all_killed), ("all tables", all_there)]


class Running(Cluster):
    def __init__(self, tools, class_path, provider):
        super().__init__(tools, "m", "mmm")
        self.hbase = HBase(self, class_path, provider)
        self.notes, self.counted = [], {}

    def note(self, words):
        self.notes.append(words)

    def begin(self):
        self.start_namenode()
        for at in range(len(self.kinds)):
            self.start_node(at)
        wait_until("the NameNode serves", self.serves)
        self.wait_registered()
        self.hbase.start()
        self.hbase.wait_up()
        self.rows = self.driver("rows")
        return self

    def keep_logs(self, name):
        if "HBASE_LOGS" in os.environ:
            folder = pathlib.Path(os.environ["HBASE_LOGS"], name)
            folder.mkdir(parents=True, exist_ok=True)
            for log in self.folder.glob("*.log"):
                shutil.copy(log, folder)

    def revive(self):
        """What a case that failed left dead is started again for the next."""
        self.hbase.process.kill()
        if not self.namenode.alive():
            self.start_namenode()
        for at, node in enumerate(self.nodes):
            if not node.alive():
                self.start_node(at)
        self.wait_registered()
        self.hbase.start()
        self.hbase.wait_up()


def attempt(cluster, provider, title, case):
    """One case; whether it held."""
    began = time.monotonic()
    cluster.notes.clear()
    try:
        case(cluster)
    except (Wrong, RuntimeError) as problem:
        print(f"FAIL {provider}: {title} ({time.monotonic() - began:.1f} s): {problem}", flush=True)
        cluster.revive()
        return False
    print(f"ok {provider}: {title} ({'; '.join([f'{time.monotonic() - began:.1f} s', *cluster.notes])})", flush=True)
    return True


def judge(binary, class_path, wanted):
    parts = [part for part in wanted if part not in PROVIDERS]
    cases = [(title, case) for title, case in CASES if not parts or any(part in title for part in parts)]
    results = []
    for provider in [name for name in PROVIDERS if name in wanted] or PROVIDERS:
        with Running(Tools(binary, client_of(class_path)), class_path, provider) as cluster:
            try:
                cluster.begin()
                results += [attempt(cluster, provider, title, case) for title, case in cases]
                cluster.hbase.process.stop()
            finally:
                cluster.keep_logs(provider)
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return results and all(results)


if __name__ == "__main__":
    sys.exit(0 if judge(sys.argv[1], sys.argv[2], sys.argv[3:]) else 1)
