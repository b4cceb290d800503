"""Libraries that read and write through the file system."""

from __future__ import annotations

import zipfile

import pytest


@pytest.fixture
def table():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"number": range(5000), "word": [f"w{n % 7}" for n in range(5000)]})


def test_pandas(mobula_fs, table):
    import pandas

    with mobula_fs.open("/t.csv", "w") as file:
        table.to_csv(file, index=False)
    with mobula_fs.open("/t.csv", "r") as file:
        assert pandas.read_csv(file).equals(table)
    url = f"mobula://{mobula_fs.host}:{mobula_fs.port}/u.csv"
    import fsspec

    from mobulafs import MobulaFileSystem

    fsspec.register_implementation("mobula", MobulaFileSystem, clobber=True)
    table.to_csv(url, index=False)
    assert pandas.read_csv(url).equals(table)


def test_pyarrow(mobula_fs, table):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.dataset
    import pyarrow.parquet
    from pyarrow.fs import FileSelector, FileType, FSSpecHandler, PyFileSystem

    files = PyFileSystem(FSSpecHandler(mobula_fs))
    written = arrow.Table.from_pandas(table)
    pyarrow.parquet.write_to_dataset(written, "/set", partition_cols=["word"], filesystem=files)
    found = pyarrow.dataset.dataset("/set", filesystem=files, format="parquet", partitioning="hive")
    assert found.count_rows() == len(table)
    assert len(found.files) == 7
    infos = files.get_file_info(FileSelector("/set", recursive=True))
    assert sum(info.type == FileType.Directory for info in infos) == 7
    files.move("/set", "/moved")
    files.delete_dir("/moved")
    assert files.get_file_info("/moved").type == FileType.NotFound
    with files.open_output_stream("/s") as stream:
        stream.write(b"0123456789")
    with files.open_input_file("/s") as file:
        assert file.read_at(3, 4) == b"456" and file.size() == 10


def test_polars(mobula_fs, table):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"number": list(range(1000)), "square": [n * n for n in range(1000)]})
    with mobula_fs.open("/p.parquet", "wb") as file:
        frame.write_parquet(file)
    with mobula_fs.open("/p.parquet", "rb") as file:
        assert polars.read_parquet(file).equals(frame)


def test_numpy(mobula_fs):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000, dtype="float32").reshape(100, 1000)
    with mobula_fs.open("/a.npy", "wb") as file:
        numpy.save(file, array)
    with mobula_fs.open("/a.npy", "rb") as file:
        assert (numpy.load(file) == array).all()


def test_dask(mobula_fs, table):
    """By URL, as dask takes it: its workers make the file system from that."""
    frames = pytest.importorskip("dask.dataframe")
    where = f"mobula://{mobula_fs.host}:{mobula_fs.port}"
    frames.from_pandas(table, npartitions=3).to_parquet(f"{where}/frames")
    assert len(mobula_fs.glob("/frames/*.parquet")) == 3
    back = frames.read_parquet(f"{where}/frames")
    assert back["number"].sum().compute() == sum(range(5000))
    assert (back["word"] == "w3").sum().compute() == (table["word"] == "w3").sum()
    frames.from_pandas(table, npartitions=2).to_csv(f"{where}/csv/*.csv", index=False)
    assert len(frames.read_csv(f"{where}/csv/*.csv")) == 5000
    bags = pytest.importorskip("dask.bag")
    bags.from_sequence(["a", "b", "c"], npartitions=3).to_textfiles(f"{where}/text/*.txt")
    assert sorted(bags.read_text(f"{where}/text/*.txt").str.strip().compute()) == ["a", "b", "c"]


def test_zarr(mobula_fs):
    zarr = pytest.importorskip("zarr", minversion="3")
    numpy = pytest.importorskip("numpy")
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    store = zarr.storage.FsspecStore(AsyncFileSystemWrapper(mobula_fs, asynchronous=True), path="/z")
    root = zarr.create_group(store=store)
    array = root.create_array("a", shape=(300, 200), chunks=(100, 50), dtype="float32")
    values = numpy.arange(60_000, dtype="float32").reshape(300, 200)
    array[:] = values
    array[10:20, 30:40] = -1
    values[10:20, 30:40] = -1
    again = zarr.open_group(store=store, mode="r")
    assert list(again) == ["a"] and (again["a"][:] == values).all()
    assert (again["a"][95:105, 45:55] == values[95:105, 45:55]).all()
    assert len(mobula_fs.find("/z/a/c")) == 12


def test_a_zip_is_written_and_read_in_place(mobula_fs):
    """What `torch.save` and `torch.load` do with a file: a zip, written in a stream, read by jumping about in it."""
    parts = {f"archive/data/{n}": bytes([n]) * (1 << (n + 10)) for n in range(12)}
    with mobula_fs.open("/m.pt", "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with mobula_fs.open("/m.pt", "rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in reversed(archive.namelist())} == parts
