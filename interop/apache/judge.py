"""Apache's halves with ours: what must hold of every mixture.

    judge.py BINARY SERVER_JARS CLIENT_PATH [MIXTURE...]

A mixture names the NameNode and then the DataNodes, a letter each, a for Apache's and m for ours: `a:aamm`.
Prints a line a case; exits with 0 only if all passed.
"""

import signal
import sys
import time

from cluster import Cluster, Putter, Tools, Wrong, contents, java_client, wait_until

MIB = 1 << 20
MIXTURES = ["a:aamm", "m:aaaa", "m:amma"]
SIZES = [0, 1, 511, 512, 513, 64_512, 65_537, MIB - 1, MIB, MIB + 1, 3 * MIB + 700]


def stored(cluster):
    """Files of sizes around every border, written and read by either client."""
    for size in SIZES:
        cluster.client.put(f"/stored/java-{size}", size)
        path = f"/stored/mobula-{size}"
        cluster.fs("-put", "-", path, stdin=contents(path, size))
    for size in SIZES:
        cluster.client.check(f"/stored/java-{size}", size)
        cluster.client.check(f"/stored/mobula-{size}", size)
        for path in (f"/stored/java-{size}", f"/stored/mobula-{size}"):
            if cluster.fs("-cat", path) != contents(path, size):
                raise Wrong(f"mobula fs -cat {path} printed something else than {size} bytes of it")
    java, ours = cluster.fs("-checksum", f"/stored/java-{SIZES[-1]}"), cluster.fs("-checksum", "/stored/java-513")
    if b"MD5-of-" not in java or b"MD5-of-" not in ours:
        raise Wrong(f"a checksum is {java} or {ours}")


def appended(cluster):
    """Appends into the middle of a chunk, to a full block, over a block's end, to an empty file."""
    for size, more in ((0, 10), (100, 1000), (512, 512), (MIB, 5), (MIB - 5, 10), (700, 2 * MIB)):
        path = f"/appended/{size}-{more}"
        cluster.client.put(path, size)
        cluster.client.extend(path, more)
        cluster.client.extend(path, 77)
        cluster.fs("-appendToFile", "-", path, stdin=contents(path, size + more + 88)[size + more + 77:])
        cluster.client.check(path, size + more + 88)


def flushed_is_seen(cluster):
    """A reader sees what was flushed, also when the writer goes on within the same chunk."""
    path, length = "/flushed", 0
    writer = cluster.driver("writer")
    writer("create", path)
    for more in (10, 90, 412, 1, 70_000, 3, MIB):
        writer("write", path, more)
        writer("hflush", path)
        length += more
        cluster.client("read", path, length)
    writer("close", path)
    cluster.client.check(path, length)
    writer.stop()


def node_dies(at):
    def case(cluster):
        """A DataNode dies under writers; those write on, and all of it is there."""
        paths = [f"/dies-{at}/{number}" for number in range(6)]
        for path in paths:
            cluster.client("create", path)
            cluster.client("write", path, 200_000)
            cluster.client("hflush", path)
        ours = [cluster.keep(Putter(cluster, f"/dies-{at}/mobula-{number}", 3 * MIB)) for number in range(3)]
        for putter in ours:
            putter.feed(MIB // 2)
        cluster.kill_node(at)
        for putter in ours:
            putter.finish()
            cluster.client.check(putter.path, 3 * MIB)
        for path in paths:
            cluster.client("write", path, 300_000)
            cluster.client("hflush", path)
            cluster.client("read", path, 500_000)
            cluster.client("write", path, MIB)
            cluster.client("close", path)
            cluster.client.check(path, 500_000 + MIB)
        cluster.start_node(at)
        cluster.wait_registered(at)
        for path in paths:
            cluster.wait_replicas(path, 3)

    return f"DataNode {at} dies under writers", case


def writer_dies(cluster):
    """A writer dies; its file is closed by lease recovery with all that was flushed."""
    path = "/abandoned"
    writer = cluster.driver("dying-writer")
    writer("create", path)
    writer("write", path, MIB + 1234)
    writer("hflush", path)
    writer.say("write", path, 300)  # may or may not get there
    writer.kill()
    wait_until(f"{path} is closed by lease recovery", lambda: cluster.client("recover", path) == "true", 90)
    length = int(cluster.client("read", path, MIB + 1234))
    if int(cluster.client("length", path)) != length:
        raise Wrong(f"{path} has another length than what can be read, {length}")
    cluster.client.extend(path, 1000)
    cluster.client.check(path, length + 1000)


def truncated(cluster):
    """Truncation inside a block, which DataNodes carry out as a recovery, and an append after it."""
    path = "/truncated"
    cluster.client.put(path, MIB + 5000)
    cluster.client("truncate", path, MIB + 1001)
    wait_until(f"{path} is closed", lambda: cluster.client("closed", path) == "true", 90)
    cluster.client.check(path, MIB + 1001)
    cluster.client.extend(path, 500)
    cluster.client.check(path, MIB + 1501)
    cluster.client("truncate", path, MIB)
    wait_until(f"{path} is closed", lambda: cluster.client("closed", path) == "true", 90)
    cluster.client.check(path, MIB)


def one_kind_alone(cluster):
    """With three replicas on four nodes, two nodes of one kind hold a replica of everything: it must be as good
    as the others'."""
    paths = [f"/alone/{number}" for number in range(8)]
    for path in paths:
        cluster.client.put(path, 300_001)
    for kind in "am":
        others = [at for at, other in enumerate(cluster.kinds) if other != kind]
        if len(others) != 2:
            continue
        for at in others:
            cluster.kill_node(at)
        for path in paths:
            cluster.client.check(path, 300_001)
            if cluster.fs("-cat", path) != contents(path, 300_001):
                raise Wrong(f"mobula fs -cat {path} printed something else")
        for at in others:
            cluster.start_node(at)
        cluster.wait_registered()
    for path in paths:
        cluster.wait_replicas(path, 3)


def deleted(cluster):
    """What is deleted leaves the disks of all."""
    for number in range(5):
        cluster.client.put(f"/deleted/{number}", 100_003)
    sizes = lambda at: [path.stat().st_size for path in cluster.replica_files(at)]
    mine = lambda: sum(sizes(at).count(100_003) for at in range(len(cluster.kinds)))
    wait_until("15 replicas are on the disks", lambda: mine() == 15)
    cluster.client("delete", "/deleted")
    wait_until("the replicas are gone", lambda: mine() == 0)


def restarted(cluster):
    """All DataNodes restart at once, and then the NameNode: reports bring everything back."""
    cluster.client.put("/restarted", 2 * MIB + 9)
    for node in cluster.nodes:
        node.kill()
    for at in range(len(cluster.nodes)):
        cluster.start_node(at)
    cluster.wait_registered()
    wait_until("the file is back", lambda: cluster.client.check("/restarted", 2 * MIB + 9) is None, 90)
    cluster.wait_replicas("/restarted", 3)
    cluster.namenode.kill()
    cluster.start_namenode()
    wait_until("the NameNode serves", cluster.serves, 90)
    wait_until("the file is back again", lambda: cluster.client.check("/restarted", 2 * MIB + 9) is None, 90)
    cluster.wait_live(len(cluster.nodes))
    cluster.wait_replicas("/restarted", 3)


def handed_over(cluster):
    """A volume changes hands, from Apache's to ours or back, and its replicas with it."""
    cluster.client.put("/handed", 2 * MIB + 11)
    cluster.wait_replicas("/handed", 3)
    for at in range(len(cluster.nodes)):
        cluster.hand_over(at)
    cluster.wait_registered()
    wait_until("the file is back", lambda: cluster.client.check("/handed", 2 * MIB + 11) is None, 90)
    cluster.wait_replicas("/handed", 3)
    cluster.client.extend("/handed", 100)
    cluster.client.check("/handed", 2 * MIB + 111)


CASES = [
    ("files of all sizes, by Java and by mobula fs", stored),
    ("one kind of DataNode alone", one_kind_alone),
    ("appends", appended),
    ("what was flushed is seen", flushed_is_seen),
    ("truncation", truncated),
    node_dies(0),
    node_dies(2),
    ("a writer dies", writer_dies),
    ("deletion", deleted),
    ("restart of everything", restarted),
    ("volumes change hands", handed_over),
]


def judge(tools, mixture, cases, wanted):
    """Runs the cases on one mixture, until one fails; how many passed and failed."""
    passed = 0
    namenode, kinds = mixture.split(":")
    title = "start"
    try:
        with Cluster(tools, namenode, kinds) as cluster:
            begun = time.monotonic()
            cluster.start()
            print(f"   {mixture} up after {time.monotonic() - begun:.1f} s", flush=True)
            for title, case in cases:
                if wanted and not any(part in title for part in wanted):
                    continue
                begun = time.monotonic()
                case(cluster)
                passed += 1
                print(f"ok {mixture} {title} ({time.monotonic() - begun:.1f} s)", flush=True)
    except Wrong as problem:
        print(f"FAIL {mixture} {title}\n     {problem}", flush=True)
        return passed, 1
    return passed, 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that clusters are taken down
    binary, server_jars, client_path, *words = sys.argv[1:]
    mixtures = [word for word in words if word[:2] in ("a:", "m:")] or MIXTURES
    wanted = [word for word in words if word not in mixtures]
    tools = Tools(binary, java_client(client_path), server_jars)
    passed = failed = 0
    for mixture in mixtures:
        good, bad = judge(tools, mixture, CASES, wanted)
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if failed == 0 and passed > 0 else 1)


if __name__ == "__main__":
    main()
