"""Linked records by Java writers, as in HBase's big linked list, while everything is killed and paused.

    links.py BINARY SERVER_JARS CLASS_PATH [MIXTURE]

Writers (LinkWriter.java) add records to files, each pointing to the one that was flushed before it, and say what was
flushed. DataNodes, the NameNode and the writers themselves are killed and paused at random. At the end a walk from
each writer's last record must come to its first, and files that were closed must have the length that they had.

A mixture names the NameNode and then the DataNodes, a letter each, a for Apache's and m for ours; default is `m:mmmmm`.
MOBULA_KILLS says how many (default 60), MOBULA_SEED replays a choice.
"""

import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apache"))

from cluster import CLIENT, JAVA, Cluster, Process, Tools, Wrong, java_client, wait_until

WRITERS, FILES = 3, 6
RECOVERY_S_MAX = 120
# Magic, writer, length, sequence number, file and position of the record before it, nothing.
HEADER = struct.Struct(">8sIIQiQI")
SETTINGS = CLIENT | {
    # As HBase has it: a pipeline that cannot be made whole goes on with what is left.
    "dfs.client.block.write.replace-datanode-on-failure.best-effort": "true",
    "dfs.client.socket-timeout": 10000,
    # What comes after a NameNode's death is a matter of seconds here.
    "ipc.client.connect.max.retries": 10,
    "ipc.client.connect.retry.interval": 300,
    "dfs.client.retry.policy.enabled": "true",
    "dfs.client.retry.policy.spec": "300,30",
}


def filler(writer, sequence, start, length):
    return bytes((at * 31 + sequence * 17 + writer) % 251 for at in range(start, length))


class Writer:
    """A Java process after the other, with one list of records."""

    def __init__(self, cluster, class_path, number, choice):
        self.cluster, self.class_path, self.number, self.choice = cluster, class_path, number, choice
        self.flushed, self.head, self.closed, self.files = 0, None, {}, set()
        self.journal = cluster.folder / f"journal{number}"
        self.read = 0
        self.start()

    def start(self):
        at = self.head or (-1, 0)
        command = [*JAVA, "-cp", self.class_path, "LinkWriter", self.cluster.uri, self.number,
                   self.choice.getrandbits(62), FILES, self.flushed, *at, *(f"{key}={value}" for key, value in SETTINGS.items())]
        with open(self.journal, "ab") as out:
            self.process = self.cluster.keep(Process([str(word) for word in command], self.cluster.folder / f"writer{self.number}.log", stdout=out))

    def kill(self):
        self.process.kill()
        self.hear()

    def hear(self):
        """What it said, but for a line that it did not end."""
        with open(self.journal, "rb") as journal:
            journal.seek(self.read)
            said = journal.read()
        said = said[:said.rfind(b"\n") + 1]
        self.read += len(said)
        for line in said.decode().splitlines():
            word, file, *number = line.split(" ")
            file = int(file)
            if word == "open":
                self.files.add(file)
                self.closed.pop(file, None)
            elif word == "flushed":
                self.head, self.flushed = (file, int(number[0])), self.flushed + 1
            elif word == "closed":
                self.closed[file] = int(number[0])
            else:
                raise RuntimeError(f"writer {self.number} says {line}")

    def verify(self):
        contents = {}
        for file in self.files:
            path = f"/links/w{self.number}/f{file}"
            try:
                self.cluster.client("length", path)
            except Wrong as problem:
                if "FileNotFoundException" in str(problem):
                    continue  # it was never made
                raise
            wait_until(f"{path} is closed by lease recovery", lambda: self.cluster.client("recover", path) == "true", RECOVERY_S_MAX)
            contents[file] = self.cluster.fs("-cat", path)
            length = int(self.cluster.client("length", path))
            if len(contents[file]) != length:
                raise Wrong(f"{path} has {length} bytes, and {len(contents[file])} could be read")
            if self.closed.get(file, length) != length:
                raise Wrong(f"{path} was closed with {self.closed[file]} bytes, and has {length}")
        place, left = self.head, self.flushed
        while place is not None:
            left -= 1
            place = self.record(contents.get(place[0], b""), place, left)
        if left != 0:
            raise Wrong(f"writer {self.number}: the walk ended {left} records before the first")

    def record(self, data, place, sequence):
        """Checks the record at a place; where the one before it is."""
        where = f"writer {self.number}: flushed record {sequence} at {place}"
        header = data[place[1]:place[1] + HEADER.size]
        if len(header) < HEADER.size:
            raise Wrong(f"{where} is missing: the file has {len(data)} bytes")
        magic, writer, length, number, file, at, _ = HEADER.unpack(header)
        if (magic, writer, number) != (b"mob link", self.number, sequence):
            raise Wrong(f"{where} is another: {header}")
        if data[place[1] + HEADER.size:place[1] + length] != filler(writer, number, HEADER.size, length):
            raise Wrong(f"{where} is damaged or cut off")
        return (file, at) if file >= 0 else None


def fault(cluster, writers, choice):
    nodes = range(len(cluster.nodes))
    node = choice.choice(nodes)
    drawn = choice.randrange(14)
    if drawn < 5:
        cluster.kill_node(node)
        time.sleep(choice.random())
        cluster.start_node(node)
    elif drawn == 5:
        for at in nodes:
            cluster.kill_node(at)
        for at in nodes:
            cluster.start_node(at)
    elif drawn == 6:
        pair = choice.sample(nodes, 2)
        for at in pair:
            cluster.kill_node(at)
        time.sleep(choice.random() * 2)
        for at in pair:
            cluster.start_node(at)
    elif drawn < 9:
        cluster.nodes[node].pause()
        time.sleep(choice.random() * 3)
        cluster.nodes[node].go_on()
    elif drawn == 9:
        cluster.namenode.pause()
        time.sleep(choice.random() * 2)
        cluster.namenode.go_on()
    elif drawn < 12:
        cluster.namenode.kill()
        cluster.start_namenode()
    else:
        writer = choice.choice(writers)
        writer.kill()
        writer.start()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    binary, server_jars, class_path, *mixture = sys.argv[1:]
    namenode, kinds = (mixture or ["m:mmmmm"])[0].split(":")
    kills = int(os.environ.get("MOBULA_KILLS", 60))
    seed = int(os.environ.get("MOBULA_SEED", random.SystemRandom().getrandbits(32)))
    print(f"MOBULA_KILLS={kills} MOBULA_SEED={seed}", flush=True)
    choice = random.Random(seed)
    with Cluster(Tools(binary, java_client(class_path), server_jars), namenode, kinds) as cluster:
        cluster.start()
        writers = [Writer(cluster, class_path, number, choice) for number in range(WRITERS)]
        for writer in writers:
            wait_until(f"writer {writer.number} writes", lambda: writer.hear() or writer.flushed > 0)
        begun = time.monotonic()
        for _ in range(kills):
            time.sleep(choice.random() * 0.5)  # the moment of the fault is what is drawn
            fault(cluster, writers, choice)
        print(f"   {kills} faults in {time.monotonic() - begun:.0f} s", flush=True)
        for writer in writers:
            writer.kill()
        wait_until("the NameNode serves", cluster.serves)
        cluster.wait_registered()
        try:
            for writer in writers:
                writer.verify()
        except Wrong as problem:
            sys.exit(f"FAIL MOBULA_KILLS={kills} MOBULA_SEED={seed}: {problem}")
        flushed = sum(writer.flushed for writer in writers)
        print(f"ok {flushed} records flushed and found", flush=True)
        if flushed < 10 * kills:
            sys.exit("FAIL the load was too small to tell")


if __name__ == "__main__":
    main()
