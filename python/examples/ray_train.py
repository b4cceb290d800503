"""Ray Train on Mobula: several workers on several nodes save checkpoints, and a lost node costs nothing but time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ray
from ray import train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

import mobulafs.ray


def loop() -> None:
    first = 0
    if checkpoint := train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            first = int((Path(folder) / "epoch").read_text()) + 1
    for epoch in range(first, 5):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "epoch").write_text(str(epoch))
            train.report({"epoch": epoch}, checkpoint=Checkpoint.from_directory(folder))


ray.init()
mobulafs.ray.start()
result = DataParallelTrainer(
    loop,
    scaling_config=ScalingConfig(num_workers=2),
    run_config=RunConfig(
        name="example",
        storage_filesystem=mobulafs.filesystem(),  # the file system, and ...
        storage_path="/train",  # ... a path without a scheme
        failure_config=FailureConfig(max_failures=3),
    ),
).fit()
print(result.metrics, result.checkpoint)
