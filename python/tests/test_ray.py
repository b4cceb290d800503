"""Mobula on a real Ray cluster of several nodes on this machine: one cluster for the whole file, as starts are slow."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

import mobulafs

ray = pytest.importorskip("ray")
pytest.importorskip("pyarrow")

from conftest import add_node, alive, launch, wait_until

import mobulafs.ray
from mobulafs.ray import DataManager
from mobulafs.ray.actors import NAMESPACE, manager_name

pytestmark = pytest.mark.timeout(300)

MIB = 1 << 20


@pytest.fixture
def manager(deployment):
    manager = DataManager(chunk_length=MIB, replication_factor=3)
    yield manager
    for index in [space.index for space in manager.list_spaces()]:
        if manager.space(index).check_status()["killed"]:
            manager.revive(index)
    manager.heal()
    for name in manager.list_artifacts():
        manager.remove(name)


def test_status_tells_who_and_where(deployment):
    status = mobulafs.ray.status()
    assert status.uri == deployment.uri and status.healed
    assert len(status.spaces) == 4 and len({space["node_id"] for space in status.spaces}) == 2
    assert all(space["seen"]["state"] == "live" for space in status.spaces)
    assert len({space["pid"] for space in status.spaces}) == 4
    assert len(status.logs) == 5 and all(os.path.exists(log) for log in status.logs.values())
    assert "if that node is lost for good" in repr(status) and "live" in status._repr_html_()
    assert mobulafs.ray.start() == deployment
    with pytest.raises(mobulafs.NotDeployed, match="other"):
        mobulafs.ray.connect("other")


def test_it_is_found_by_name_from_any_worker(deployment, noise):
    data = noise(3 * MIB, 1)
    deployment.fsspec().pipe("/from-driver", data)

    @ray.remote(num_cpus=0.1)
    def work(number, given):
        found = mobulafs.filesystem()
        with found.open_output_stream(f"/from-worker-{number}") as out:
            out.write(b"%d" % number)
        return given.fsspec().cat("/from-driver") == found.open_input_file("/from-driver").read() and len(data)

    assert ray.get([work.remote(number, deployment) for number in range(4)]) == [len(data)] * 4
    files = deployment.fsspec()
    assert [files.cat(f"/from-worker-{n}") for n in range(4)] == [b"0", b"1", b"2", b"3"]


def test_a_killed_space_is_healed_and_comes_back(manager, noise):
    data = noise(6 * MIB, 2)
    manager.add("a", data)
    victim = next(space for space in manager.list_spaces() if "a" in space.list())
    pid = manager.kill(victim.index)
    assert not alive(pid)
    began = time.monotonic()
    assert manager.get("a") == data  # while it heals
    events: list[str] = []
    manager.heal(on_event=lambda event: events.append(event.kind))
    assert time.monotonic() - began < 25
    assert {"node_dead", "copy_verified"} <= set(events)
    assert manager.check_status("a").healthy and manager.get("a") == data
    assert victim.check_status()["killed"] and "killed" in repr(victim)
    with pytest.raises(mobulafs.BadArgument, match="does not run"):
        victim.kill()
    victim.revive()
    wait_until(lambda: victim.check_status()["state"] == "live", 30, "it is back")


def test_what_a_space_stores_is_on_that_space(deployment, manager, noise, tmp_path):
    one = DataManager(chunk_length=MIB, replication_factor=1)
    data = noise(3 * MIB + 7, 9)
    (tmp_path / "file").write_bytes(data)
    for space in one.list_spaces():
        kinds = {"bytes": data, "path": tmp_path / "file", "pieces": iter([data[:MIB], data[MIB:]]), "empty": b""}
        for kind, value in kinds.items():
            name = f"{kind}-{space.index}"
            assert space.add(name, value) == (0 if kind == "empty" else len(data))
            address = space.check_status()["address"]
            assert {chunk.spaces for chunk in one.check_status(name).chunks} <= {(address,)}
            assert one.get(name) == (b"" if kind == "empty" else data)
        with pytest.raises(mobulafs.ArtifactExists):
            space.add(f"bytes-{space.index}", b"")
        space.update(f"bytes-{space.index}", b"newer")
        assert space.list() == {f"bytes-{space.index}": 1, f"path-{space.index}": 4, f"pieces-{space.index}": 4}
    # A space that is down takes nothing; the others do.
    space.kill()
    space.add("elsewhere", b"1")
    assert one.get("elsewhere") == b"1"


def test_a_lost_artifact_is_told_and_back_when_a_space_returns(manager, noise):
    two = DataManager(chunk_length=MIB, replication_factor=2)
    data = noise(MIB, 3)
    two.add("lost", data)
    manager.add("kept", data)
    holders = [
        s.index for s in two.list_spaces() if s.check_status()["address"] in two.check_status("lost").chunks[0].spaces
    ]
    assert len(holders) == 2
    # Wherever "kept" is, one of its three copies is on a third space.
    for index in holders:
        manager.kill(index)
    with pytest.raises(mobulafs.ArtifactLost, match="'lost'"):
        two.get("lost")
    assert manager.get("kept") == data
    wait_until(lambda: two.check_status("lost").lost, 30, "it is reported lost")
    assert two.check_status("lost").state == "lost"
    assert two.healer.status().missing >= 1
    with pytest.raises(TimeoutError, match="lost"):
        two.heal(timeout=0.5)
    manager.revive(holders[0])
    wait_until(lambda: not two.check_status("lost").lost, 30, "its space is back")
    assert two.get("lost") == data
    two.heal()
    assert two.check_status("lost").healthy


def test_an_added_space_takes_what_was_missing(manager, noise):
    five = DataManager(chunk_length=MIB, replication_factor=5)
    five.add("five", noise(2 * MIB, 4))
    assert five.check_status("five").copies == 4
    space = five.add_space()
    wait_until(lambda: five.check_status("five").healthy, 30, "the fifth copies")
    assert space.list()["five"] == 2
    five.remove("five")
    five.remove_space(space.index)
    assert len(five.list_spaces()) == 4
    with pytest.raises(mobulafs.BadArgument):
        five.space(99)
    with pytest.raises(mobulafs.BadArgument):
        five.add_space("no such node")


def test_a_space_that_was_removed_stays_removed_when_the_manager_dies(manager):
    removed = manager.list_spaces()[0]
    told = removed.check_status()
    manager.remove_space(removed.index)
    try:
        _kill_the_manager()
        assert removed.index not in [space.index for space in manager.list_spaces()]
        assert not alive(told["pid"])
    finally:
        added = manager.add_space(told["node_id"])
    # Its folder is given up, with the space.
    assert added.check_status()["volumes"] != told["volumes"]
    assert len(manager.list_spaces()) == 4


def _kill_the_manager():
    before = mobulafs.ray.status().namenode["actor_pid"]
    ray.kill(ray.get_actor(manager_name("default"), namespace=NAMESPACE), no_restart=False)

    def back():
        # The one that is about to die may still answer.
        status = mobulafs.ray.status()
        return status.namenode["actor_pid"] != before and all(space["running"] for space in status.spaces)

    wait_until(back, 90, "another manager")


def test_an_added_space_is_there_again_after_a_stop(ray_cluster, tmp_path, noise):
    data = noise(3 * MIB, 10)
    launch(tmp_path, name="more", spaces_per_node=1)
    try:
        one = DataManager(chunk_length=MIB, replication_factor=1, cluster="more")
        space = one.add_space()
        space.add("a", data)
        assert space.list() == {"a": 3}
        mobulafs.ray.stop("more")
        launch(tmp_path, name="more", spaces_per_node=1)
        one = DataManager(chunk_length=MIB, replication_factor=1, cluster="more")
        assert len(one.list_spaces()) == 3
        assert one.get("a") == data
    finally:
        mobulafs.ray.stop("more")


LATE = """
import sys, ray, mobulafs.ray
from mobulafs.ray import deploy
ray.init(address={address!r}, _node_ip_address="127.0.0.2", log_to_driver=False)
found = deploy._existing
deploy._existing = lambda name: setattr(deploy, "_existing", found)  # as if it had looked a moment earlier
deployment = mobulafs.ray.start("twice", volumes={folder!r} + "/spaces", namenode_dir={folder!r} + "/namenode")
print(deployment.fsspec().cat("/kept"), flush=True)
"""


def test_of_two_drivers_that_start_at_once_only_one_ends_it(ray_cluster, tmp_path):
    first = launch(tmp_path, name="twice", spaces_per_node=1)
    try:
        first.fsspec().pipe("/kept", b"kept")
        text = LATE.format(address=ray_cluster.address, folder=str(tmp_path))
        done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 0 and "b'kept'" in done.stdout, done
        assert mobulafs.ray.connect("twice") == first
        assert all(space["running"] for space in mobulafs.ray.status("twice").spaces)
        assert first.fsspec().cat("/kept") == b"kept"
    finally:
        mobulafs.ray.stop("twice")


def test_an_actor_that_dies_takes_its_running_daemon_up_again(manager):
    space = manager.list_spaces()[0]
    before = space.check_status()
    actor = manager._actor(space.index)
    ray.kill(actor, no_restart=False)

    def back():
        now = space.check_status()
        # The actor that is about to die may still answer, and has started the daemon: this one has not.
        return now["running"] and now["starts"] == 0 and now

    assert before["starts"] > 0
    after = wait_until(back, 60, "its actor is back, and has started nothing")
    assert (after["pid"], after["uuid"], after["address"]) == (before["pid"], before["uuid"], before["address"])


def test_a_daemon_that_dies_is_started_again_on_its_disk(manager, noise):
    manager.add("a", noise(MIB, 5))
    space = manager.list_spaces()[0]
    before = space.check_status()
    os.kill(before["pid"], 9)
    after = wait_until(
        lambda: (s := space.check_status())["running"] and s["pid"] != before["pid"] and s, 30, "a new one"
    )
    assert after["uuid"] == before["uuid"] and after["log"] == before["log"]
    manager.heal()
    assert manager.check_status("a").healthy


def test_killing_the_manager_and_the_namenode(manager, deployment, noise):
    data = noise(MIB, 6)
    manager.add("a", data)
    pids = {space["index"]: space["pid"] for space in mobulafs.ray.status().spaces}
    namenode = mobulafs.ray.status().namenode["pid"]
    ray.kill(ray.get_actor(manager_name("default"), namespace=NAMESPACE), no_restart=False)
    assert manager.get("a") == data  # nobody needs the manager for files
    status = wait_until(
        lambda: (s := mobulafs.ray.status()) and all(x["running"] for x in s.spaces) and len(s.spaces) == 4 and s,
        90,
        "all are back",
    )
    assert status.namenode["pid"] == namenode
    assert {space["pid"] for space in status.spaces} == set(pids.values())
    os.kill(namenode, 9)
    assert manager.get("a") == data  # waits until the NameNode is started again on its port
    assert mobulafs.ray.connect() == mobulafs.ray.connect()
    wait_until(lambda: mobulafs.ray.status().namenode["pid"] not in (None, namenode), 30, "a new NameNode")
    manager.heal()


def test_no_space_left(ray_cluster, tmp_path, noise):
    launch(tmp_path, name="small", capacity="3m", spaces_per_node=1)
    try:
        small = DataManager(chunk_length=MIB, replication_factor=1, cluster="small")
        with pytest.raises(OSError) as told:
            small.add("big", noise(40 * MIB, 7))
        assert told.value.errno == 28, told.value
        assert small.list_artifacts() == []
    finally:
        mobulafs.ray.stop("small")


def test_arguments_that_make_no_sense(ray_cluster, tmp_path):
    for wrong in ({"name": "a b"}, {"spaces_per_node": 0}, {"replication": 0}, {"namenode_node": "10.9.9.9"}):
        with pytest.raises(mobulafs.BadArgument):
            launch(tmp_path, **{"name": "wrong", **wrong})
    with pytest.raises(mobulafs.ClusterFailed, match="12q"):
        launch(tmp_path, name="wrong", block_size="12q")
    with pytest.raises(mobulafs.NotDeployed):
        mobulafs.ray.status("wrong")


def test_a_network_must_be_trusted():
    from mobulafs.ray.actors import bind_address
    from mobulafs.ray.deploy import _check_network

    with pytest.raises(mobulafs.BadArgument, match="trust_network=True"):
        _check_network({"a": "10.0.0.1", "b": "10.0.0.2"}, False)
    _check_network({"a": "10.0.0.1", "b": "10.0.0.2"}, True)
    _check_network({"a": "10.0.0.1"}, False)
    assert bind_address("10.0.0.1", False) == "127.0.0.1"
    assert bind_address("10.0.0.1", True) == "10.0.0.1"
    assert bind_address("127.0.0.2", True) == "127.0.0.1"


def test_nodes_join_and_leave(ray_cluster, manager, noise):
    data = noise(4 * MIB, 8)
    node = add_node(ray_cluster)
    wait_until(lambda: len(manager.list_spaces()) == 6 and mobulafs.ray.status().health["nodes"], 90, "two more spaces")
    wait_until(lambda: manager.healer.status().spaces_live >= 6, 60, "they live")
    manager.add("a", data)
    spaces = mobulafs.ray.status().spaces
    gone = [space for space in spaces if space["node_id"] == node.unique_id or space["node_id"] == node.node_id]
    assert len(gone) == 2
    # The machine is lost: its raylet, its actors and its servers.
    ray_cluster.remove_node(node, allow_graceful=False)
    for space in gone:
        os.kill(space["pid"], 9)
    wait_until(lambda: len(manager.list_spaces()) == 4, 60, "they are forgotten")
    assert manager.get("a") == data
    manager.heal()
    assert manager.check_status("a").healthy


DRIVER = """
import sys, ray, mobulafs.ray
ray.init(address={address!r}, _node_ip_address="127.0.0.2", log_to_driver=False)
deployment = mobulafs.ray.start({name!r}, volumes={folder!r} + "/spaces", namenode_dir={folder!r} + "/namenode",
                                claim_limit=6, detached={detached})
if not deployment.fsspec().exists("/kept"):
    deployment.fsspec().pipe("/kept", b"kept")
print([s["pid"] for s in mobulafs.ray.status({name!r}).spaces], deployment.fsspec().cat("/kept"), flush=True)
if {hang}:
    sys.stdin.read()
"""


def _driver(cluster, folder, name, detached, hang=False):
    text = DRIVER.format(address=cluster.address, folder=str(folder), name=name, detached=detached, hang=hang)
    driver = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert driver.stdout
    line = driver.stdout.readline()
    assert "b'kept'" in line, line
    pids = [int(word.strip("[],")) for word in line.split()[:-1]]
    return driver, pids


def test_detached_outlives_its_driver_and_stop_ends_it(ray_cluster, tmp_path):
    driver, pids = _driver(ray_cluster, tmp_path, "kept", detached=True)
    driver.communicate(timeout=60)
    assert all(map(alive, pids))
    assert mobulafs.ray.connect("kept").fsspec().cat("/kept") == b"kept"
    mobulafs.ray.stop("kept")
    assert not any(map(alive, pids))
    with pytest.raises(mobulafs.NotDeployed):
        mobulafs.ray.connect("kept")
    # On the same folders all data is there.
    launch(tmp_path, name="kept", spaces_per_node=1)
    assert mobulafs.ray.connect("kept").fsspec().cat("/kept") == b"kept"
    mobulafs.ray.stop("kept")


def test_everything_ends_with_a_driver_that_is_killed(ray_cluster, tmp_path):
    driver, pids = _driver(ray_cluster, tmp_path, "gone", detached=False, hang=True)
    assert pids and all(map(alive, pids))
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(map(alive, pids)), 60, "the servers ended")
