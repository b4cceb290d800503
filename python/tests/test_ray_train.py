"""Ray Data and Ray Train on Mobula, on several nodes, with one lost on the way."""

from __future__ import annotations

import os
import tempfile
import threading

import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("ray.train")

from conftest import add_node, wait_until

import mobulafs
import mobulafs.ray

pytestmark = pytest.mark.timeout(400)


def test_ray_data_writes_and_reads(deployment):
    files = mobulafs.filesystem()
    rows = ray.data.range(2000, override_num_blocks=4).map(lambda row: {"id": row["id"], "square": row["id"] ** 2})
    rows.write_parquet("/data/squares", filesystem=files)
    back = ray.data.read_parquet("/data/squares", filesystem=files)
    assert back.count() == 2000
    local = mobulafs.ray.read(ray.data.read_parquet, ["/data/squares"], columns=["square"])
    assert sum(row["square"] for row in local.take_all()) == sum(n * n for n in range(2000))
    # A bare fsspec object, and a path with the scheme that pyarrow knows.
    bare = ray.data.read_parquet("hdfs:///data/squares", filesystem=deployment.fsspec())
    assert bare.count() == 2000


def _noting(deployment):
    """The cluster's files, which note on which node they are read; of a function, so that it travels by value."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    class Noting(FSSpecHandler):
        def open_input_stream(self, path):
            self.fs.pipe_file(f"/opened/{os.path.basename(path)}", ray.get_runtime_context().get_node_id().encode())
            return FSSpecHandler.open_input_stream(self, path)

    return PyFileSystem(Noting(deployment.fsspec()))


def _read_placed(deployment):
    options = {"filesystem": _noting(deployment), "override_num_blocks": 2}
    return mobulafs.ray.read(ray.data.read_binary_files, "/placed", **options).take_all()


def test_ray_data_reads_each_file_on_a_node_that_holds_it(deployment):
    files = deployment.fsspec(replication=1)
    holders = {}
    nodes = {space["uuid"]: space["node_id"] for space in mobulafs.ray.status().spaces}
    for number in range(10):
        files.pipe(f"/placed/{number % 2}/f{number}", b"%d" % number)
        [block] = files.block_locations(f"/placed/{number % 2}/f{number}")
        holders[f"f{number}"] = nodes[block.uuids[0]]
    files.pipe("/placed/_passed_over", b"x")
    assert len(set(holders.values())) == 2
    rows = _read_placed(deployment)
    assert sorted(row["bytes"] for row in rows) == [b"%d" % number for number in range(10)]
    opened = {name: files.cat(f"/opened/{name}").decode() for name in holders}
    assert opened == holders
    files.rm("/placed", recursive=True)  # of one copy: a node that another test loses would take it along
    with pytest.raises(FileNotFoundError):
        mobulafs.ray.read(ray.data.read_parquet, "/nowhere")


def _loop():
    """A function of a function: it travels to the workers by value, which cannot import this file."""

    def train_loop(config):
        from ray import train

        rank = train.get_context().get_world_rank()
        first, seen = 0, train.get_checkpoint()
        if seen:
            with seen.as_directory() as folder, open(os.path.join(folder, "step-0")) as file:
                first = int(file.read()) + 1
        for step in range(first, config["steps"]):
            with tempfile.TemporaryDirectory() as folder:
                with open(os.path.join(folder, f"step-{rank}"), "w") as file:
                    file.write(str(step))
                with open(os.path.join(folder, f"weights-{rank}"), "wb") as file:
                    file.write(bytes([step]) * 200_000)
                train.report({"step": step, "first": first}, checkpoint=train.Checkpoint.from_directory(folder))
            if step == 1 and first == 0:
                mobulafs.ray.connect().fsspec().pipe(f"/ranks/{rank}", ray.get_runtime_context().get_node_id().encode())
                threading.Event().wait(config["pause"])

    return train_loop


def _fit(steps, pause, failures=3):
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    trainer = DataParallelTrainer(
        _loop(),
        train_loop_config={"steps": steps, "pause": pause},
        # On two nodes for certain, and with room on those that are left.
        scaling_config=ScalingConfig(
            num_workers=2, resources_per_worker={"CPU": 1}, placement_strategy="STRICT_SPREAD"
        ),
        run_config=RunConfig(
            name=f"run-{steps}",
            storage_filesystem=mobulafs.filesystem(),
            storage_path="/train",
            failure_config=FailureConfig(max_failures=failures),
        ),
    )
    return trainer.fit()


def test_ray_train_survives_the_loss_of_a_node(ray_cluster, deployment):
    """Workers on two nodes save checkpoints; the node of one is lost with its DataNodes; the run ends well."""
    add_node(ray_cluster)
    wait_until(lambda: mobulafs.ray.AutoHealer().status().spaces_live >= 6, 90, "the new node's spaces live")
    files = deployment.fsspec()
    lost: list[int] = []

    def told(rank: int) -> str:
        # A file that is being written is there, and empty.
        return files.cat(f"/ranks/{rank}").decode() if files.exists(f"/ranks/{rank}") else ""

    def lose() -> None:
        workers = wait_until(
            lambda: (w := {told(0), told(1)}) and "" not in w and w, 200, "training has saved something"
        )
        assert len(workers) == 2
        node = next(node for node in ray_cluster.worker_nodes if node.node_id in workers)
        spaces = [space for space in mobulafs.ray.status().spaces if space["node_id"] == node.node_id]
        ray_cluster.remove_node(node, allow_graceful=False)
        for space in spaces:
            os.kill(space["pid"], 9)
            lost.append(space["index"])

    killer = threading.Thread(target=lose)
    killer.start()
    result = _fit(steps=4, pause=150)
    killer.join()
    assert len(lost) == 2
    assert result.error is None and result.metrics["step"] == 3
    # It went on from a checkpoint, not from the beginning; from which one is Ray's affair, which may not have taken
    # note of the second one yet.
    assert result.metrics["first"] in (1, 2)
    with result.checkpoint.as_directory() as folder:
        for rank in range(2):
            with open(os.path.join(folder, f"weights-{rank}"), "rb") as file:
                assert file.read() == bytes([3]) * 200_000
    mobulafs.ray.AutoHealer().wait_until_healthy(120)
