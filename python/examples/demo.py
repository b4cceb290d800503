"""What `mobula demo` shows, on Ray: store an artifact, lose a space, heal, update, read back, compare, list.

    python python/examples/demo.py [FILE]

It starts a Ray of its own on this machine, with five spaces in a temporary folder, and leaves nothing behind. A file
may be given to be stored instead of random bytes.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

# A busy machine's Ray agents need longer to start than the 15 s that Ray gives them.
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import numpy
import ray

import mobulafs.ray
from mobulafs.ray import DataManager
from mobulafs.ray.picture import draw
from mobulafs.ray.table import size

MIB = 1 << 20
BEGAN = time.monotonic()


def say(text: object = "") -> None:
    for line in str(text).splitlines() or [""]:
        print(f"   {line}", flush=True)


def step(title: str) -> None:
    print(f"\n[{time.monotonic() - BEGAN:5.1f} s] {title}", flush=True)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def lose_and_heal(data: DataManager, content: bytes, folder: str) -> int:
    before = (data.check_status(), data.places())
    victim = max(data.list_spaces(), key=lambda space: sum(space.list().values()))
    held = sum(victim.list().values())
    step(f"Kill space {victim.index} with SIGKILL, and watch the AutoHealer")
    began = time.monotonic()
    say(f"process {victim.kill()} is killed; it held {held} chunks")
    say(f"read while it heals: equal: {data.get('artifact') == content}")
    copies = 0

    def tell(event: mobulafs.ray.Event) -> None:
        nonlocal copies
        copies += event.kind == "copy_verified"
        if not event.kind.startswith("copy_"):
            say(f"+{time.monotonic() - began:5.2f} s  {event}")

    data.heal(on_event=tell)
    say(f"+{time.monotonic() - began:5.2f} s  {copies} copies made and verified; every chunk has its three again")
    say(f"read back: SHA-256 {digest(data.get('artifact'))} equal: {data.get('artifact') == content}")
    try:
        picture = Path(folder) / "chunks.png"
        draw([("before", *before), ("after healing", data.check_status(), data.places())], picture)
        say(f"a picture of the chunks before and after: {picture} ({size(picture.stat().st_size)})")
    except ImportError:
        say("(with matplotlib installed there would be a picture)")
    return victim.index


def show(data: DataManager, folder: str) -> None:
    content = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else os.urandom(16 * MIB)
    step(f"Store an artifact of {size(len(content))} in chunks of 1 MiB, three copies each")
    began = time.monotonic()
    data.add("artifact", content)
    say(f"{time.monotonic() - began:.2f} s, synced on every copy; SHA-256 {digest(content)}")
    say(data.check_status())

    lost = lose_and_heal(data, content, folder)

    step("Update: a newer version takes its place in one step")
    newer = content[::-1]
    data.update("artifact", newer)
    say(f"read back: SHA-256 {digest(newer)} equal: {data.get('artifact') == newer}")

    step("Arrays are .npy files that every HDFS client can read; the lost space comes back")
    array = numpy.arange(1_000_000, dtype="float32").reshape(1000, 1000)
    data.add("array", array)
    say(f"an array of {array.shape}: equal: {bool((data.get('array') == array).all())}")
    data.revive(lost)
    data.heal()

    step("List")
    say(repr(data))
    assert data.get("artifact") == newer and data.check_status("artifact").healthy
    data.remove("array")
    assert data.list_artifacts() == ["artifact"]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mobula-demo-") as folder:
        step("Start Ray, then Mobula on it with one call: a NameNode and five spaces")
        ray.init(
            address="local",  # a Ray of its own, whatever else runs here
            _node_ip_address="127.0.0.2",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80 * MIB,
            log_to_driver=False,
            logging_level="error",
        )
        began = time.monotonic()
        mobulafs.ray.start(
            "demo",
            volumes=f"{folder}/spaces",
            namenode_dir=f"{folder}/namenode",
            spaces_per_node=5,
            dead_after=4,
            claim_limit=10,
        )
        say(f"ready after {time.monotonic() - began:.2f} s")
        try:
            say(mobulafs.ray.status("demo"))
            show(DataManager(chunk_length=MIB, replication_factor=3, cluster="demo"), folder)
        finally:
            mobulafs.ray.stop("demo")
            ray.shutdown()
    step("All ended, the folder removed")


if __name__ == "__main__":
    main()
