"""Clusters made of Apache's halves and ours: NameNodes and DataNodes as processes on loopback, each of either
kind, in one temporary folder.

Whatever happens to this process, none of them outlives it, and the folder goes with them. A DataNode's folder
outlives the process in it: the other kind may be started on it (handing over a volume).
"""

import ctypes
import getpass
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib

READY_S_MAX = 90
ANSWER_S_MAX = 120
LINE_BYTES = 20
LOG_LINES_SHOWN, LOG_COLUMNS_SHOWN = 10, 300

# The list that Hadoop 3.5's start scripts give a JDK 17.
OPENS = ("java.io java.lang java.lang.reflect java.math java.net java.text java.util java.util.concurrent "
         "java.util.zip sun.security.util sun.security.x509 sun.nio.ch").split()
JAVA = ["java", "-Xmx256m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true",
        *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in OPENS)]

LOG4J = """log4j.rootLogger=INFO,stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""
WEB_XML = '<?xml version="1.0"?>\n<web-app version="2.4" xmlns="http://java.sun.com/xml/ns/j2ee"></web-app>\n'

# Short, where HDFS can be told: a DataNode is dead after 2 x 1 s + 10 x 1 s.
NAMENODE = {
    "dfs.heartbeat.interval": 1,
    "dfs.namenode.heartbeat.recheck-interval": 1000,
    "dfs.namenode.stale.datanode.interval": 3000,
    "dfs.namenode.redundancy.interval.seconds": 1,
    "dfs.namenode.reconstruction.pending.timeout-sec": 5,
    "dfs.namenode.safemode.extension": 0,
    "dfs.namenode.replication.work.multiplier.per.iteration": 20,
    "dfs.namenode.lease-recheck-interval-ms": 500,
    "dfs.namenode.handler.count": 4,
    # With four nodes and a dead one the mean load says little, and the one node left may count as too busy.
    "dfs.namenode.redundancy.considerLoad": "false",
    "dfs.namenode.edits.noeditlogchannelflush": "true",
    "dfs.namenode.secondary.http-address": "127.0.0.1:0",
}
DATANODE = {
    "dfs.heartbeat.interval": 1,
    "dfs.blockreport.initialDelay": 0,
    "dfs.datanode.hostname": "localhost",
    "dfs.datanode.handler.count": 2,
    "dfs.datanode.scan.period.hours": -1,
    "dfs.datanode.directoryscan.interval": 3600,
    "ipc.client.connect.max.retries": 3,
    "ipc.client.connect.retry.interval": 500,
}
CLIENT = {
    "dfs.blocksize": 1 << 20,
    "dfs.replication": 3,
    "dfs.client.socket-timeout": 20000,
    "ipc.client.rpc-timeout.ms": 60000,
}


class Wrong(Exception):
    """What was seen is not what must hold."""


def contents(path, length):
    """What a file of this name holds, as Driver.java has it."""
    crc = zlib.crc32(path.rsplit("/", 1)[-1].encode())
    lines = (f"{crc:08x} {line:010d}\n" for line in range(length // LINE_BYTES + 1))
    return "".join(lines).encode()[:length]


def user():
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_until(what, holds, limit_s=60):
    """Asks again and again; an exception of the question is taken for a no, and told at the end."""
    end, last = time.monotonic() + limit_s, None
    while True:
        try:
            if holds():
                return
        except (Wrong, OSError) as problem:
            last = problem
        if time.monotonic() > end:
            raise Wrong(f"after {limit_s} s still not: {what}" + (f" ({last})" if last else ""))
        time.sleep(0.2)


def die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Process:
    """A process of ours, with its log."""

    def __init__(self, command, log, environment=None, **pipes):
        self.log = log
        self.log_before = log.stat().st_size if log.exists() else 0
        with open(log, "ab") as out:
            self.child = subprocess.Popen(command, stdin=pipes.get("stdin", subprocess.DEVNULL), stderr=out,
                                          stdout=pipes.get("stdout", out), env=environment, cwd=log.parent,
                                          preexec_fn=die_with_parent)

    def alive(self):
        return self.child.poll() is None

    def pause(self):
        self.child.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.child.send_signal(signal.SIGCONT)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        """In order, and if it does not go, without."""
        if self.alive():
            self.child.terminate()
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def has_logged(self, words):
        with open(self.log, errors="replace") as log:
            log.seek(self.log_before)
            return words in log.read()

    def lines(self, count):
        return "".join(open(self.log, errors="replace").readlines()[-count:])


class Driver(Process):
    """A client that does what it is told, a line each (Driver.java, driver.go)."""

    def __init__(self, command, log):
        super().__init__(command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.child.stdout.fileno(), False)
        self.unread = b""
        self.asked = "start"
        if self.answer() != "ready":
            raise Wrong(f"the client did not start:\n{self.lines(20)}")

    def say(self, *words):
        """Says what to do; the answer can be had later."""
        self.asked = " ".join(map(str, words))
        self.child.stdin.write(f"{self.asked}\n".encode())
        self.child.stdin.flush()

    def answer(self):
        end = time.monotonic() + ANSWER_S_MAX
        while b"\n" not in self.unread:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.child.stdout], [], [], left)[0]:
                raise Wrong(f"{self.asked}: no answer within {ANSWER_S_MAX} s")
            more = self.child.stdout.read()
            if more == b"":
                raise Wrong(f"{self.asked}: the client ended:\n{self.lines(20)}")
            self.unread += more or b""
        line, self.unread = self.unread.split(b"\n", 1)
        line = line.decode().rstrip()
        if line.startswith("failed"):
            raise Wrong(f"{self.asked}: {line}")
        return line.removeprefix("ok").strip()

    def __call__(self, *words):
        self.say(*words)
        return self.answer()

    def put(self, path, length):
        self("create", path)
        self("write", path, length)
        self("close", path)

    def extend(self, path, length):
        self("append", path)
        self("write", path, length)
        self("close", path)

    def check(self, path, length):
        read = int(self("read", path, length))
        if read != length:
            raise Wrong(f"{path} has {read} bytes of {length}")


class Putter(Process):
    """Our own shell, putting a file that it is given piece by piece."""

    def __init__(self, cluster, path, length):
        super().__init__(cluster.fs_command("-put", "-", path), cluster.folder / "put.log", stdin=subprocess.PIPE)
        self.path, self.left = path, contents(path, length)

    def feed(self, count):
        self.child.stdin.write(self.left[:count])
        self.child.stdin.flush()
        self.left = self.left[count:]

    def finish(self):
        self.feed(len(self.left))
        self.child.stdin.close()
        if self.child.wait(ANSWER_S_MAX) != 0:
            raise Wrong(f"mobula fs -put - {self.path}: {self.lines(3)}")


class Tools:
    """Where things are: our binary, what starts a client, and the jars of Apache's servers."""

    def __init__(self, binary, client, server_jars=None):
        self.binary, self.client, self.server_jars = binary, client, server_jars


def java_client(class_path):
    """What starts Driver.java on a cluster."""
    settings = [f"{key}={value}" for key, value in CLIENT.items()]
    return lambda cluster: [*JAVA, "-cp", class_path, "Driver", cluster.uri, *settings]


class Cluster:
    """`kinds` is a letter a DataNode: a for Apache's, m for ours."""

    def __init__(self, tools, namenode, kinds):
        self.tools, self.namenode_kind, self.kinds = tools, namenode, list(kinds)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="interop-apache-"))
        self.ports = free_ports(2 + 3 * len(kinds))
        self.address = f"127.0.0.1:{self.ports[0]}"
        self.uri = f"hdfs://{self.address}"
        self.processes = []
        self.nodes = [None] * len(kinds)

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, _):
        for process in reversed(self.processes):
            process.kill()
        if kind is not None:
            keep = os.environ.get("KEEP_LOGS")
            if keep:
                shutil.copytree(self.folder, keep, ignore=shutil.ignore_patterns("blk_*"), dirs_exist_ok=True)
            for log in sorted(self.folder.glob("*.log")):
                end = open(log, errors="replace").read().splitlines()[-LOG_LINES_SHOWN:]
                print("\n".join([f"---- the end of {log.name}", *(line[:LOG_COLUMNS_SHOWN] for line in end)]), flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, process):
        self.processes.append(process)
        return process

    def configuration(self, role, settings):
        folder = self.folder / f"conf-{role}"
        if not folder.exists():
            folder.mkdir()
            core = {"fs.defaultFS": self.uri, "hadoop.tmp.dir": self.folder / "tmp"}
            for name, values in (("core-site.xml", core), ("hdfs-site.xml", settings)):
                rows = "".join(f"<property><name>{key}</name><value>{value}</value></property>\n" for key, value in values.items())
                (folder / name).write_text(f'<?xml version="1.0"?>\n<configuration>\n{rows}</configuration>\n')
            (folder / "log4j.properties").write_text(LOG4J)
            for page in ("hdfs", "datanode", "static"):  # the jars carry no web pages, and the servers want some
                (folder / "webapps" / page / "WEB-INF").mkdir(parents=True)
                (folder / "webapps" / page / "WEB-INF" / "web.xml").write_text(WEB_XML)
        return folder

    def java(self, folder, name, *arguments):
        # Jetty unpacks its pages where Java puts temporary files, and a server that is killed leaves them there.
        temporary = self.folder / "java-tmp"
        temporary.mkdir(exist_ok=True)
        return [*JAVA, f"-Djava.io.tmpdir={temporary}", "-cp", f"{folder}:{self.tools.server_jars}/*",
                f"org.apache.hadoop.hdfs.server.{name}", *arguments]

    # ---- NameNode

    def start_namenode(self):
        log = self.folder / "namenode.log"
        if self.namenode_kind == "m":
            command = [self.tools.binary, "namenode", "--dir", str(self.folder / "name"), "--listen", self.address,
                       "--http-port", str(self.ports[1])]
            self.namenode = self.keep(Process(command, log))
            return
        folder = self.configuration("namenode", NAMENODE | {
            "dfs.namenode.rpc-address": self.address,
            "dfs.namenode.http-address": f"127.0.0.1:{self.ports[1]}",
            "dfs.namenode.name.dir": f"file://{self.folder}/name",
        })
        if not (self.folder / "name").exists():
            formatted = self.keep(Process(self.java(folder, "namenode.NameNode", "-format", "-nonInteractive"), log))
            if formatted.child.wait(READY_S_MAX) != 0:
                raise Wrong(f"Apache's NameNode could not format:\n{formatted.lines(20)}")
        self.namenode = self.keep(Process(self.java(folder, "namenode.NameNode"), log))

    # ---- DataNodes

    def start_node(self, at):
        port = 2 + 3 * at
        data, ipc, http = (f"127.0.0.1:{self.ports[port + more]}" for more in range(3))
        folder = self.configuration(f"node{at}", DATANODE | {
            "dfs.datanode.address": data, "dfs.datanode.ipc.address": ipc, "dfs.datanode.http.address": http,
            "dfs.datanode.data.dir": f"file://{self.volume(at)}",
        })
        if self.kinds[at] == "a":
            command = self.java(folder, "datanode.DataNode")
        else:
            command = [self.tools.binary, "datanode", "--conf", str(folder), "--dir", str(self.volume(at)), "--namenode",
                       self.address, "--listen", data, "--ipc-listen", ipc]
        self.nodes[at] = self.keep(Process(command, self.folder / f"node{at}.log"))

    def wait_registered(self, *which):
        for at in which or range(len(self.kinds)):
            words = "successfully registered with NN" if self.kinds[at] == "a" else "ready "
            wait_until(f"DataNode {at} is registered", lambda: self.registered(at, words), READY_S_MAX)

    def registered(self, at, words):
        if not self.nodes[at].alive():
            raise RuntimeError(f"DataNode {at} ended:\n{self.nodes[at].lines(30)}")
        return self.nodes[at].has_logged(words)

    def volume(self, at):
        return self.folder / f"data{at}"

    def kill_node(self, at):
        self.nodes[at].kill()

    def hand_over(self, at):
        """Ends a DataNode in order, and starts the other kind on its volume."""
        self.nodes[at].stop()
        # Both are believed without a look, and tell what was when they were written.
        for name in ("replicas", "dfsUsed"):
            for cache in self.volume(at).glob(f"current/BP-*/current/{name}"):
                cache.unlink()
        self.kinds[at] = "m" if self.kinds[at] == "a" else "a"
        self.start_node(at)

    def replica_files(self, at):
        """Data files of replicas, wherever they are on the node's volume."""
        return [path for path in self.volume(at).glob("current/BP-*/current/**/blk_*") if path.suffix != ".meta"]

    # ---- both

    def start(self):
        self.start_namenode()
        for at in range(len(self.kinds)):
            self.start_node(at)
        wait_until("the NameNode serves", self.serves, READY_S_MAX)
        self.wait_registered()
        self.client = self.driver("client")
        return self

    def serves(self):
        if not self.namenode.alive():
            raise RuntimeError(f"the NameNode ended:\n{self.namenode.lines(30)}")
        socket.create_connection(("127.0.0.1", self.ports[0]), timeout=1).close()
        return True

    def driver(self, name):
        return self.keep(Driver(self.tools.client(self), self.folder / f"{name}.log"))

    def wait_live(self, count, limit_s=READY_S_MAX):
        wait_until(f"{count} live DataNodes", lambda: int(self.client("live")) == count, limit_s)

    def wait_replicas(self, path, count, limit_s=60):
        wait_until(f"{path} has {count} replicas", lambda: int(self.client("replicas", path)) == count, limit_s)

    def fs_command(self, *arguments):
        settings = (word for key in ("dfs.blocksize", "dfs.replication") for word in ("-D", f"{key}={CLIENT[key]}"))
        return [self.tools.binary, "fs", "-fs", self.uri, *settings, *arguments]

    def fs(self, *arguments, stdin=b""):
        """Our own shell, with what it prints."""
        done = subprocess.run(self.fs_command(*arguments), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=ANSWER_S_MAX)
        if done.returncode != 0:
            raise Wrong(f"mobula fs {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
        return done.stdout
