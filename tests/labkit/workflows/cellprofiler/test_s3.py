"""Images in S3: the same image sets, and cell by cell the same results, as of local files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import labkit
from labkit.base.problems import RefusedError
from labkit.jobs.model import State
from labkit.testing.moto import MotoServer
from labkit.workflows.cellprofiler import checks, example
from labkit.workflows.cellprofiler.images import ImageSets, read_images
from labkit.workflows.cellprofiler.sources import read_source
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines
from tests.labkit.workflows.cellprofiler.test_images import BY_PLATE, loaddata
from tests.labkit.workflows.cellprofiler.test_run import measuring

BUCKET = "lab-images"
TOP = f"s3://{BUCKET}/week 1"


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    """A server that answers for S3, with one bucket."""
    import boto3

    with MotoServer() as moto:
        boto3.client("s3", **moto.client_options).create_bucket(Bucket=BUCKET)
        yield moto


@pytest.fixture
def s3(server: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client; labkit finds the same server, and its tasks find the keys in a file."""
    import boto3

    client = boto3.client("s3", **server.client_options)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in server.environment.items():
        if "KEY" not in name:
            monkeypatch.setenv(name, value)
    keys = tmp_path / "keys"
    keys.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    yield client
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])


def upload(s3: Any, folder: Path) -> None:
    """Store all files of a folder below TOP."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"week 1/{path.relative_to(folder)}"
            s3.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


def as_remote(found: ImageSets, folder: Path) -> pd.DataFrame:
    """Return local image sets as they must be of S3."""
    table = found.table.copy()
    for name in found.channels:
        paths = table[f"PathName_{name}"]
        table[f"PathName_{name}"] = [path.replace(str(folder), TOP) for path in paths]
    return table


def plate(folder: Path) -> Path:
    """Make small files: two plates, two wells, two channels."""
    for name in ("P1", "P2"):
        (folder / name).mkdir(parents=True)
        for well in ("A01", "B02"):
            for wave in (1, 2):
                (folder / name / f"{name}_{well}_s1_w{wave}.tif").write_bytes(b"x")
    return folder


def test_files_are_matched_as_on_a_disk(s3: Any, tmp_path: Path) -> None:
    folder = plate(tmp_path / "img")
    upload(s3, folder)
    content = pipelines.named_and_typed(match="Metadata", keys=BY_PLATE)
    local = read_images(content, read_source(folder))
    found = read_images(content, read_source(TOP))
    assert len(found) == 4
    pd.testing.assert_frame_equal(found.table, as_remote(local, folder))
    assert not found.problems
    some = [f"{TOP}/P1/P1_A01_s1_w{wave}.tif" for wave in (1, 2)]
    assert len(read_images(content, read_source(some))) == 1


def test_tables_of_any_kind_name_the_same_images(s3: Any, tmp_path: Path) -> None:
    folder = plate(tmp_path / "img")
    pattern = r"(?P<Plate>\w+)/\w+?_(?P<Well>[A-P]\d\d)_s1_(?P<Channel>w\d)\.tif"
    local = loaddata(labkit.image_sets(folder, pattern))
    relative = local.table[["Metadata_Plate", "Metadata_Well"]].assign(
        **{
            f"FileName_{name}": [
                str(Path(path).relative_to(folder)) for path in local.paths()[name]
            ]
            for name in local.channels
        }
    )
    relative.to_csv(folder / "load.csv", index=False)
    upload(s3, folder)
    wanted = as_remote(local, folder)
    urls = relative[["Metadata_Plate", "Metadata_Well"]].assign(
        **{f"URL_{name}": [f"{TOP}/{file}" for file in relative[f"FileName_{name}"]]
           for name in local.channels}
    )  # fmt: skip
    found = [
        loaddata(f"{TOP}/load.csv"),
        loaddata(TOP, folder / "load.csv"),
        loaddata(f"{TOP}/", f"{TOP}/load.csv"),
        loaddata(urls),
        loaddata(labkit.image_sets(TOP, pattern)),
    ]
    for sets in found:
        pd.testing.assert_frame_equal(sets.table, wanted, check_like=True)
        assert not checks.broken_images(sets)


def test_what_is_missing_or_empty_is_named_before(s3: Any, tmp_path: Path) -> None:
    folder = plate(tmp_path / "img")
    (folder / "P1/P1_A01_s1_w1.tif").write_bytes(b"")
    (folder / "P2/P2_B02_s1_w2.tif").unlink()
    upload(s3, folder)
    rows = [(name, well) for name in ("P1", "P2") for well in ("A01", "B02")]
    table = pd.DataFrame(
        {f"URL_w{n}": [f"{TOP}/{p}/{p}_{well}_s1_w{n}.tif" for p, well in rows] for n in (1, 2)}
    )
    sets = loaddata(table)
    broken = checks.broken_images(sets)
    assert sorted(broken) == [0, 3]
    assert broken[0][0][1] == "the file is empty"
    assert "There is no object" in broken[3][0][1]
    assert len(sets.remote_inputs([3])) == 1, "a task is not kept from the others by it"
    nothing = checks.check_integrity(sets, dict.fromkeys(range(4), broken[0]))
    assert "not one image set is whole" in nothing[0].text
    with pytest.raises(RefusedError, match="there is nothing at s3://lab-images/week 2/"):
        read_source(f"s3://{BUCKET}/week 2/")
    with pytest.raises(RefusedError, match="no such bucket"):
        read_source("s3://no-such-bucket-of-ours/x/")
    with pytest.raises(RefusedError, match="names nothing safely"):
        read_source(f"s3://{BUCKET}/../x/")


@needs_env("cellprofiler")
@needs_env("notebook")
def test_cell_by_cell_the_same_as_of_local_files(s3: Any, lab_home: Path, tmp_path: Path) -> None:
    images = tmp_path / "img"
    example.make_plate(images, 2, 2, size=160)
    upload(s3, images)
    pipeline = measuring(tmp_path, ["Well"])
    task = labkit.CellProfiler(pipeline, TOP, chunk_size=2, profiles=False)
    job: Any = task.submit(output=str(tmp_path / "runs")).wait(300)
    assert job.state is State.SUCCEEDED, job.failed()
    assert [task["units"] for task in job.run.folder.tasks("analysis")] == [2, 2]
    theirs = pipelines.one_process(pipeline, tmp_path / "whole", images)
    for name in ("Image", "Nuclei", "Cells"):
        mine, whole = job.results(name, places=False), theirs[name]
        places = [c for c in mine if c.startswith(("PathName_", "URL_"))]
        assert bool(places) == (name == "Image")
        pipelines.assert_equal(mine.drop(columns=places), whole.drop(columns=places))
        for column in places:
            assert all(text.startswith(f"s3://{BUCKET}/week") for text in mine[column])
    assert job.show(well="A01") is not None


@needs_env("cellprofiler")
@needs_env("notebook")
def test_every_stage_fetches_its_own_images(s3: Any, lab_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "img"
    images, _ = example.make_plate(folder, 2, 1, size=160)
    upload(s3, folder)
    for column in [name for name in images if str(name).startswith("PathName_")]:
        images[column] = [str(path).replace(str(folder), TOP) for path in images[column]]
    task = labkit.CellProfiler(
        example.CORRECTED, images, illumination=example.ILLUMINATION, chunk_size=1
    )
    plan = task.plan("local")
    every = {f"{TOP}/{path.name}" for path in folder.rglob("*.tif")}
    light, analysis, gather = plan.stages
    assert set(light.tasks[0].inputs) == every
    assert [len(one.inputs) for one in analysis.tasks] == [len(every) // 2] * 2
    assert {address for one in analysis.tasks for address in one.inputs} == every
    assert not gather.tasks[0].inputs
