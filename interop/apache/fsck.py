"""Apache's own `hdfs fsck`, and its shell over webhdfs://, against Apache's servers and against ours: the same steps on both, and the same lines and
exit codes, but for what no two clusters share (ids, ports, times, the order of replicas). Then our own `mobula admin
fsck` against both, held to the same.

    fsck.py BINARY SERVER_JARS CLIENT_PATH SHELLS

Prints a line a step, and what differs; exits with 0 only if nothing does.
"""

import difflib
import os
import pathlib
import re
import signal
import subprocess
import sys

from cluster import ANSWER_S_MAX, JAVA, Cluster, Tools, Wrong, contents, java_client, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "cli"))
from judge import ApacheShell  # noqa: E402

NODES, MIB = 3, 1 << 20
STRANGER = "stranger"
# What stands for nothing but itself: (what it looks like, what is put in its place).
OWN = [
    (re.compile(r"BP-\d+-[\d.]+-\d+"), "POOL"),
    (re.compile(r"DS-[0-9a-f-]{36}"), "VOLUME"),
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST:PORT"),
    (re.compile(r" at \w{3} \w{3} \d\d \d\d:\d\d:\d\d \w+ \d{4}"), " at DATE"),
    (re.compile(r"in \d+ milliseconds"), "in N milliseconds"),
    (re.compile(r"inode=\"([^\"]*)\":\S+:\S+:"), r'inode="\1":OWNER:GROUP:'),
]
BLOCK = re.compile(r"blk_(\d+)(_\d+)?")
PLACES = re.compile(r"\[((?:DatanodeInfoWithStorage\[[^\]]*\]|/[^,\]]*)(?:\([^)]*\))*(?:, )?)+\]")
PLACE = re.compile(r"(?:DatanodeInfoWithStorage\[[^\]]*\]|/[^,\]\[(]*)(?:\([^)]*\))*")


def normal(text):
    """Without what is of one cluster alone. Blocks are numbered as they come."""
    numbers = {}

    def number(match):
        return f"blk_#{numbers.setdefault(match[1], len(numbers))}" + ("_STAMP" if match[2] else "")

    text = BLOCK.sub(number, text)
    for pattern, instead in OWN:
        text = pattern.sub(instead, text)
    text = PLACES.sub(lambda match: "[" + ", ".join(sorted(PLACE.findall(match[0][1:-1]))) + "]", text)
    lines = text.splitlines()
    replicas = sorted(line for line in lines if line.startswith("Block replica on"))
    return [replicas.pop(0) if line.startswith("Block replica on") else line for line in lines]


class Judged:
    """A cluster with what was said about it, in order: (step, lines, exit code)."""

    def __init__(self, tools, shells, mixture):
        self.tools, self.shells, self.mixture = tools, shells, mixture
        self.said = []

    def __enter__(self):
        namenode, kinds = self.mixture.split(":")
        self.cluster = Cluster(self.tools, namenode, kinds).__enter__()
        try:
            return self.start()
        except BaseException:
            self.cluster.__exit__(*sys.exc_info())
            raise

    def start(self):
        self.cluster.start()
        self.http = f"127.0.0.1:{self.cluster.ports[1]}"
        self.conf = self.cluster.configuration("fsck", {"dfs.namenode.http-address": self.http})
        (self.conf / "log4j.properties").write_text("log4j.rootLogger=OFF\n")
        self.path = f"{self.shells}:{self.conf}:{self.tools.server_jars}/*"
        self.shell = ApacheShell(self.path, self.cluster.folder / "fsck-shell.log")
        return self

    def __exit__(self, *problem):
        self.shell.end()
        self.cluster.__exit__(*problem)

    def fsck(self, *words):
        return self.shell.run("fsck", list(words))

    def note(self, step, *words):
        """Notes what Apache's fsck says."""
        text, code = self.fsck(*words)
        self.said.append((step, normal(text), code))
        return text, code

    def judge(self, step, *words):
        """The same, and holds ours to it."""
        text, code = self.note(step, *words)
        own = subprocess.run([self.tools.binary, "admin", "--fs", self.cluster.uri, "fsck", "--http", self.http, *words],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=ANSWER_S_MAX, text=True)
        theirs = [line for line in normal(text) if not line.startswith("Connecting to namenode via")]
        if own.stderr or own.returncode != code % 256 or normal(own.stdout) != theirs:
            told = "\n".join(difflib.unified_diff(theirs, normal(own.stdout), "Apache's fsck", "mobula admin fsck", "", "", 1, ""))
            raise Wrong(f"{self.mixture}: {step}: exit code {own.returncode} for {code}, {own.stderr}\n{told}")

    def judge_stranger(self, step, *words):
        """The same for a user who is nobody here."""
        done = subprocess.run([*JAVA, "-cp", self.path, "org.apache.hadoop.hdfs.tools.DFSck", *words],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=ANSWER_S_MAX, text=True,
                              env=os.environ | {"HADOOP_USER_NAME": STRANGER})
        self.said.append((step, normal(done.stdout), done.returncode))

    def until(self, words, *arguments):
        wait_until(f"fsck {' '.join(arguments)} says {words}", lambda: words in self.fsck(*arguments)[0], 90)

    def block_of(self, path):
        return BLOCK.findall(self.fsck(path, "-files", "-blocks")[0])[0][0]

    def put(self, path, length, replication):
        self.cluster.fs("-D", f"dfs.replication={replication}", "-put", "-", path, stdin=contents(path, length))


def healthy(c):
    c.put("/d/a", 2 * MIB + 700, 2)
    c.put("/d/sub/b", 10, NODES)
    c.put("/d/empty", 0, 1)
    c.cluster.wait_replicas("/d/a", 2)
    c.cluster.wait_replicas("/d/sub/b", NODES)
    c.until("Average block replication:\t2.25", "/")
    c.judge("the root", "/")
    c.judge("a folder", "/d", "-files")
    c.judge("a file with its blocks", "/d/a", "-files", "-blocks")
    c.judge("places", "/d", "-files", "-blocks", "-locations")
    c.judge("racks", "/d", "-files", "-blocks", "-racks")
    c.judge("details", "/d/a", "-files", "-blocks", "-replicaDetails")
    c.judge("upgrade domains", "/d/a", "-files", "-blocks", "-upgradedomains", "-maintenance")
    c.judge("storage policies", "/", "-storagepolicies")
    c.judge("old switches", "/", "-showprogress", "-includeSnapshots", "-replicate")
    # Apache's does not even ask fsck.
    c.note("no such path", "/none", "-files")
    c.judge("a block", "/", "-blockId", f"blk_{c.block_of('/d/sub/b')}")
    c.judge("blocks that are none", "/", "-blockId", "blk_1", "nothing")
    c.judge("a block that is none", "/", "-blockId", "nothing")
    c.judge("none is corrupt", "/", "-list-corruptfileblocks")


def open_file(c):
    writer = c.cluster.client
    writer("create", "/open/f")
    writer("write", "/open/f", MIB + 700)
    writer("hflush", "/open/f")
    c.judge("an open file", "/open")
    c.judge("an open file is asked for", "/open", "-openforwrite")
    c.judge("an open file with its blocks", "/open", "-openforwrite", "-files", "-blocks", "-locations")
    writer("close", "/open/f")
    c.until("HEALTHY", "/open")


def under(c):
    c.cluster.fs("-setrep", "4", "/d/sub/b")
    c.until("Under replicated", "/d")
    c.judge("under replicated", "/d")
    c.judge("under replicated, with its blocks", "/d", "-files", "-blocks", "-maintenance")
    c.cluster.fs("-setrep", "3", "/d/sub/b")
    c.until(" Under-replicated blocks:\t0", "/d")


def strangers(c):
    c.cluster.fs("-chmod", "600", "/d/sub/b")
    c.judge_stranger("a file that may not be read", "/d")
    c.cluster.fs("-chmod", "700", "/d/sub")
    c.judge_stranger("a folder that may not be read", "/d")
    c.judge_stranger("blocks are for the superuser", "/", "-blockId", "blk_1")
    c.judge_stranger("corrupt blocks are for the superuser", "/", "-list-corruptfileblocks")


def corrupt(c):
    c.put("/bad/f", 1000, 1)
    c.cluster.wait_replicas("/bad/f", 1)
    block = c.block_of("/bad/f")
    for at in range(NODES):
        for path in c.cluster.replica_files(at):
            if path.name == f"blk_{block}":
                path.write_bytes(b"!" + path.read_bytes()[1:])
    try:
        c.cluster.client("read", "/bad/f", 1000)
    except Wrong:
        pass
    c.until("is CORRUPT", "/bad")
    c.judge("a corrupt file", "/bad")
    c.judge("a corrupt file with its blocks", "/bad", "-files", "-blocks", "-replicaDetails", "-storagepolicies")
    c.judge("a corrupt block", "/", "-blockId", f"blk_{block}")
    # Ours deletes nothing by fsck (docs/decisions/0011-fsck.md).
    c.cluster.client("delete", "/bad/f")
    c.judge("it is gone", "/bad", "-files")


def missing(c):
    c.put("/lost/f", 1000, 1)
    c.cluster.wait_replicas("/lost/f", 1)
    block = c.block_of("/lost/f")
    holder = next(at for at in range(NODES) if any(path.name == f"blk_{block}" for path in c.cluster.replica_files(at)))
    c.cluster.kill_node(holder)
    c.until("MISSING!", "/lost", "-files", "-blocks")
    # What else it had is copied, which takes its time.
    c.judge("a missing block", "/lost")
    c.judge("a missing block in its file", "/lost", "-files", "-blocks", "-locations")
    c.until("/lost/f", "/", "-list-corruptfileblocks")
    c.judge("missing blocks in a list", "/lost", "-list-corruptfileblocks")
    c.judge("none elsewhere", "/d", "-list-corruptfileblocks")


def webhdfs(c):
    """Names and metadata by Apache's shell over HTTP."""
    for words in (
        "-mkdir -p /w/a/b /w/space%20d", "-ls -C -R /w", "-mv /w/a/b /w/c", "-mv /w/a /w/c", "-mv /none /w/d",
        "-chmod 700 /w/c", "-chown her:them /w/c", "-stat %F,%u,%g,%a,%r,%b,%n /w/c /d/empty /", "-count /w",
        "-count -q /w /", "-du /d", "-setrep 2 /d/empty", "-stat %r /d/empty", "-test -d /w/c", "-test -e /none", "-ls /none",
        "-rmdir /w/c", "-rm -r -skipTrash /w/c", "-rm /none", "-mkdir /w/a:b", "-mkdir /w", "-find /w -name a", "-df /",
    ):
        # Free space is each cluster's own.
        text, code = c.shell.run("fs", ["-fs", f"webhdfs://{c.http}", *words.split(" ")])
        lines = normal(text.replace(f"webhdfs://{c.http}", "WEB"))
        c.said.append((f"webhdfs {words}", lines if "-df" not in words else lines[:1], code))


PARTS = [healthy, webhdfs, open_file, under, strangers, corrupt, missing]


def run(tools, shells, mixture):
    with Judged(tools, shells, mixture) as judged:
        for part in PARTS:
            part(judged)
        return judged.said


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that clusters are taken down
    binary, server_jars, client_path, shells = sys.argv[1:]
    tools = Tools(binary, java_client(client_path), server_jars)
    kinds = "a" * NODES, "m" * NODES
    try:
        theirs, ours = (run(tools, shells, f"{kind}:{nodes}") for kind, nodes in zip("am", kinds))
    except Wrong as problem:
        sys.exit(f"FAIL {problem}")
    failed = 0
    for (step, lines, code), (_, own, own_code) in zip(theirs, ours, strict=True):
        if (lines, code) == (own, own_code):
            print(f"ok {step}")
            continue
        failed += 1
        told = "\n".join(difflib.unified_diff(lines, own, "Apache's NameNode", "ours", "", "", 1, ""))
        print(f"FAIL {step}: exit code {code}, ours {own_code}\n{told}")
    print(f"{len(theirs) - failed} passed, {failed} failed")
    sys.exit(0 if failed == 0 else 1)


if __name__ == "__main__":
    main()
