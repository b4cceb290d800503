"""colinmarc's Go client against a NameNode and three DataNodes of ours.

    judge.py BINARY DRIVER [PART OF A TITLE]...
"""

import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apache"))

from cluster import Tools, Wrong, contents, user, wait_until
from judge import MIB, SIZES, judge


def expect(what, seen, wanted):
    if seen != wanted:
        raise Wrong(f"{what}: {seen!r} instead of {wanted!r}")


def stored(cluster):
    """Files of sizes around every border, written and read by Go and by mobula fs."""
    for size in SIZES:
        path = f"/stored/go-{size}"
        cluster.client.put(path, size)
        cluster.client.check(path, size)
        if cluster.fs("-cat", path) != contents(path, size):
            raise Wrong(f"mobula fs -cat {path} printed something else than {size} bytes of it")
        path = f"/stored/mobula-{size}"
        cluster.fs("-put", "-", path, stdin=contents(path, size))
        cluster.client.check(path, size)


def names(cluster):
    """Listing, renaming, deleting, and what is told of a file."""
    go = cluster.client
    for name in ("c", "a", "b"):
        go.put(f"/names/{name}", 1000)
    expect("a listing", go("list", "/names"), "a,b,c")
    go("rename", "/names/a", "/names/d")
    expect("the old name", go("exists", "/names/a"), "false")
    expect("the new name", go("exists", "/names/d"), "true")
    go("chmod", "/names/d", "600")
    expect("the mode", go("mode", "/names/d"), "600")
    expect("the summary", go("summary", "/names"), "3 1 3000")
    go("delete", "/names")
    expect("what was deleted", go("exists", "/names"), "false")


def appended(cluster):
    for size, more in ((0, 10), (100, 1000), (512, 512), (MIB, 5), (MIB - 5, 10), (700, 2 * MIB)):
        path = f"/appended/{size}-{more}"
        cluster.client.put(path, size)
        cluster.client.extend(path, more)
        cluster.client.check(path, size + more)
        if cluster.fs("-cat", path) != contents(path, size + more):
            raise Wrong(f"mobula fs -cat {path} printed something else")
    cluster.client("truncate", "/appended/700-2097152", MIB)
    cluster.client.check("/appended/700-2097152", MIB)


def node_dies(cluster):
    """The Go client reads on from another DataNode. A writer of its cannot go on, and says so; the next one can."""
    go = cluster.client
    go.put("/dies/read", 3 * MIB)
    go("create", "/dies/written")
    go("write", "/dies/written", 100_000)
    go("hflush", "/dies/written")
    cluster.kill_node(1)
    go.check("/dies/read", 3 * MIB)
    try:
        for _ in range(40):
            go("write", "/dies/written", 100_000)
        go("close", "/dies/written")
    except Wrong as told:
        print(f"     the writer was told: {str(told)[:150]}", flush=True)
    else:
        go.check("/dies/written", 41 * 100_000)
    cluster.fs("-D", "dfs.replication=2", "-put", "-f", "-", "/dies/next", stdin=contents("/dies/next", 500_000))
    go.check("/dies/next", 500_000)
    cluster.start_node(1)
    cluster.wait_registered(1)
    wait_until("Go writes to three again", lambda: go.put("/dies/last-" + str(len(go("list", "/dies"))), 500_000) is None)


CASES = [("files of all sizes", stored), ("names", names), ("appends", appended), ("a DataNode dies", node_dies)]


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    binary, driver, *wanted = sys.argv[1:]
    tools = Tools(binary, lambda cluster: [driver, cluster.address, user()])
    passed, failed = judge(tools, "m:mmm", CASES, wanted)
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if failed == 0 and passed > 0 else 1)


if __name__ == "__main__":
    main()
