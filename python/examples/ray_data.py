"""Ray Data on Mobula: write a data set and read it back, without S3 or NFS."""

from __future__ import annotations

import ray

import mobulafs.ray

ray.init()
mobulafs.ray.start()
files = mobulafs.filesystem()

squares = ray.data.range(100_000).map(lambda row: {"id": row["id"], "square": row["id"] ** 2})
squares.write_parquet("/data/squares", filesystem=files)  # a path without a scheme
print(ray.data.read_parquet("/data/squares", filesystem=files).sum("square"))
print(mobulafs.ray.read(ray.data.read_parquet, "/data/squares").sum("square"))  # each file where its blocks are
