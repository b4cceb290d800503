#!/usr/bin/env python3
"""Files by hdfs-native, the client that neither side wrote: one large one, or many small ones.

    native.py hdfs://host:port data|small SIZE FILES

Speaks with compare.py over its pipes: prints "ready" before each thing and its result after, a line
of JSON each, and waits for a line in between, so that the servers' CPU time can be read.
"""
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from hdfs_native import Client, WriteOptions

BLOCK = 128 << 20
SMALL = 100_000
AT_ONCE = 16
UNITS = {"k": 10, "m": 20, "g": 30}


def say(event):
    print(json.dumps(event), flush=True)
    sys.stdin.readline()


def timed(name, work, size):
    say("ready")
    started, own = time.perf_counter(), time.process_time()
    work()
    seconds = time.perf_counter() - started
    say({"name": name, "seconds": seconds, "own_cpu_s": time.process_time() - own, "bytes": size})


def data(client, size):
    piece = os.urandom(1 << 20)

    def put():
        options = WriteOptions(replication=3, block_size=BLOCK, overwrite=True)
        with client.create("/native-large", options) as file:
            left = size
            while left:
                left -= file.write(piece[:min(left, len(piece))]) or min(left, len(piece))

    def get():
        got = sum(len(part) for part in client.read("/native-large").read_range_stream(0, size))
        assert got == size, got

    timed("put, 3 replicas", put, size)
    timed("get", get, size)
    client.delete("/native-large")


def small(client, files):
    """Leaves its files: ext4 makes new ones slowly for minutes after thousands were deleted."""
    content = os.urandom(SMALL)
    folder = f"/native-small-{os.getpid()}"

    def put(index):
        options = WriteOptions(replication=3, block_size=BLOCK, overwrite=True)
        with client.create(f"{folder}/f{index}", options) as file:
            file.write(content)

    def get(index):
        assert len(client.read(f"{folder}/f{index}").read()) == SMALL

    client.mkdirs(folder)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        timed("put", lambda: list(pool.map(put, range(files))), files * SMALL)
        timed("get", lambda: list(pool.map(get, range(files))), files * SMALL)


def main():
    uri, what, size, files = sys.argv[1:5]
    unit = UNITS.get(size[-1].lower())
    size = int(size[:-1]) << unit if unit else int(size)
    client = Client(uri)
    data(client, size) if what == "data" else small(client, int(files))
    sys.stdout.flush()
    os._exit(0)  # hdfs-native 0.14.7 can hang when its runtime ends


if __name__ == "__main__":
    main()
