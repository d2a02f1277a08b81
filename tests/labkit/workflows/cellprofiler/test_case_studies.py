"""Real CellProfiler on the cases of others: their columns and files, on images made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import labkit
from labkit.jobs.model import State
from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.job import CellProfilerJob
from labkit.workflows.cellprofiler.loaddata import complete
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines

pytestmark = [needs_env("cellprofiler"), needs_env("notebook")]


def finish(task: labkit.CellProfiler, output: Path) -> CellProfilerJob:
    job = task.submit(output=str(output))
    assert isinstance(job, CellProfilerJob)
    job.wait(300)
    assert job.state is State.SUCCEEDED, list(job.failed()["text"])
    return job


def bbbc021(folder: Path) -> pd.DataFrame:
    """Make images of two weeks and return a table with the columns of BBBC021_v1_image.csv."""
    rows = []
    for number, (week, plate) in enumerate((("1", "22123"), ("1", "22141"), ("2", "24121"))):
        name = f"Week{week}_{plate}"
        place = folder / f"Week{week}" / name
        images, _ = example.make_plate(place, 2, 1, plate=name, size=160, shading=0.4, seed=number)
        for site, image in enumerate(images.to_dict("records")):
            row = {"TableNumber": str(number + 4), "ImageNumber": str(233 + site)}
            for channel, source in (("DAPI", "OrigDNA"), ("Tubulin", "OrigER")):
                row[f"Image_FileName_{channel}"] = image[f"FileName_{source}"]
                row[f"Image_PathName_{channel}"] = f"Week{week}/{name}"
            row["Image_Metadata_Plate_DAPI"] = name
            row["Image_Metadata_Well_DAPI"] = image["Metadata_Well"]
            row["Replicate"] = "1"
            row["Image_Metadata_Compound"] = "DMSO" if site == 0 else "taxol"
            row["Image_Metadata_Concentration"] = str(site * 0.3)
            rows.append(row)
    return pd.DataFrame(rows)


def bbbc021_pipelines(folder: Path) -> tuple[Path, Path]:
    names = (("OrigDNA", "DAPI"), ("OrigER", "Tubulin"), ("IllumDNA", "IllumDAPI"))
    light = pipelines.changed(example.ILLUMINATION, folder, *names[::2])
    return light, pipelines.changed(example.CORRECTED, folder, *names)


def test_bbbc021_as_it_comes(lab_home: Path, tmp_path: Path) -> None:
    """The book's case: illumination over the images of a week, analysis in slices, gather."""
    table = bbbc021(tmp_path / "BBBC021")
    light, analysis = bbbc021_pipelines(tmp_path)
    week = table[table["Image_PathName_DAPI"].str.startswith("Week1/")]

    job = finish(
        labkit.CellProfiler(
            analysis,
            images=tmp_path / "BBBC021",
            data_file=week,
            illumination=light,
            illumination_by="all",
            chunk_size=1,
        ),
        tmp_path / "runs",
    )

    assert [task["key"] for task in job.run.folder.tasks("illumination")] == ["all"]
    assert len(list(job.run.folder.tasks("analysis"))) == 4
    nuclei = job.results("Nuclei")
    assert set(nuclei["plate"]) == {"Week1_22123", "Week1_22141"}
    assert set(nuclei["well"]) == {"A01", "A02"}
    assert len(job.profiles("aggregated")) == 4
    images = complete(week, tmp_path / "BBBC021")
    pipelines.one_process(light, tmp_path / "light", images)
    images = images.assign(
        FileName_IllumDAPI="IllumDAPI.npy", PathName_IllumDAPI=str(tmp_path / "light")
    )
    theirs = pipelines.one_process(analysis, tmp_path / "whole", images)
    for name in ("Image", "Nuclei", "Cells"):
        pipelines.assert_equal(job.results(name, places=False), theirs[name])
    # tasks are found by what a person calls them
    assert job.log_path("Week1_22141") == job.log_path("000003")
    assert job.log_path("A02") == job.log_path("2") == job.log_path("000002")
    assert job.log_path("all").parent.name == "illumination"


def test_each_plate_of_bbbc021_has_its_own_illumination(lab_home: Path, tmp_path: Path) -> None:
    table = bbbc021(tmp_path / "BBBC021")
    light, analysis = bbbc021_pipelines(tmp_path)
    table.to_csv(tmp_path / "image.csv", index=False)
    task = labkit.CellProfiler(
        analysis,
        images=tmp_path / "BBBC021",
        data_file=tmp_path / "image.csv",
        illumination=light,
        group_by=["Plate", "Well"],
    )
    plan = task.plan("local")
    plates = ["Week1_22123", "Week1_22141", "Week2_24121"]
    assert [each.key for each in plan.stage("illumination").tasks] == plates
    needs = {str(each.params["needs"]) for each in plan.stage("analysis").tasks}
    assert len(needs) == 3 and all(f"illumination/{plate}/" in str(needs) for plate in plates)


INTENSITY = """\
MeasureImageIntensity:[module_num:1|svn_version:'Unknown'|variable_revision_number:3|enabled:True]
    Select images to measure:{images}
    Measure the intensity only from areas enclosed by objects?:No
    Select input object sets:
"""


def measured_by_name(folder: Path, images: str, **settings: object) -> str:
    """Return a pipeline that reads files by name and measures intensities."""
    head = pipelines.names_and_types(**settings).split("\n\n", 1)[1].split("\n\n")
    head = [part.strip("\n") + "\n" for part in head]
    export = pipelines.example_module("ExportToSpreadsheet")
    return pipelines.joined(*head, INTENSITY.format(images=images), export)


def equal_to_one_process(tmp_path: Path, pipeline: Path, folder: Path) -> CellProfilerJob:
    task = labkit.CellProfiler(pipeline, folder, chunk_size=1, profiles=False)
    job = finish(task, tmp_path / "runs")
    theirs = pipelines.one_process(pipeline, tmp_path / "whole", folder)["Image"]
    pipelines.assert_equal(job.results("Image", places=False), theirs)
    return job


def test_volumes_equal_one_process(lab_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "img"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(1, 4):
        planes = [
            Image.fromarray(rng.integers(0, 60_000, (24, 32), dtype=np.uint16)) for _ in range(5)
        ]
        planes[0].save(folder / f"P_A0{number}_s1_w1.tif", save_all=True, append_images=planes[1:])
    content = measured_by_name(tmp_path, "DNA", rules=[("DNA", '"w1"')])
    content = content.replace("Process as 3D?:No", "Process as 3D?:Yes")
    job = equal_to_one_process(tmp_path, pipelines.write(tmp_path, content), folder)
    # all five planes were measured, not the first one
    assert set(job.results("Image")["Intensity_TotalArea_DNA"]) == {5 * 24 * 32}


def test_an_illumination_function_of_a_plate_is_matched_by_the_plate(
    lab_home: Path, tmp_path: Path
) -> None:
    """ExampleVitra's kind: images by plate and well, one function for each plate."""
    folder = tmp_path / "img"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for plate in ("P1", "P2"):
        for well in ("A01", "A02"):
            pixels = rng.integers(0, 60_000, (24, 32), dtype=np.uint16)
            Image.fromarray(pixels).save(folder / f"{plate}_{well}_s1_w1.tif")
        np.save(folder / f"{plate}_light.npy", rng.random((24, 32)).astype(np.float32) + 1)
    content = measured_by_name(
        tmp_path,
        "DNA, Light",
        match="Metadata",
        keys="[{'DNA': 'Plate', 'Light': 'Plate'}, {'DNA': 'Well', 'Light': None}]",
        regexp="^(?P<Plate>P[0-9])_(?P<Well>[A-P][0-9]+)?",
        rules=[("DNA", '"w1"'), ("Light", '"light"')],
    )
    # as ExampleVitra does: .npy is no image to CellProfiler's "Images only"
    content = content.replace("Filter images?:Images only", "Filter images?:Custom").replace(
        'and (extension does isimage) (directory doesnot startwith ".")',
        'or (extension does isimage) (file does endwith ".npy")',
    )
    before, after = content.rsplit("Select the image type:Grayscale image", 1)
    content = f"{before}Select the image type:Illumination function{after}"
    job = equal_to_one_process(tmp_path, pipelines.write(tmp_path, content), folder)
    lights = job.results("Image").groupby("plate")["FileName_Light"].agg(set).to_dict()
    assert lights == {"P1": {"P1_light.npy"}, "P2": {"P2_light.npy"}}


def test_a_single_image_is_used_for_all_sets(lab_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "img"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("P_A01_s1_w1.tif", "P_A02_s1_w1.tif", "flat field.tif"):
        pixels = rng.integers(0, 60_000, (24, 32), dtype=np.uint16)
        Image.fromarray(pixels).save(folder / name)
    content = measured_by_name(tmp_path, "DNA, Flat", rules=[("DNA", '"w1"')])
    single = (
        f"    Single image location:{(folder / 'flat field.tif').as_uri()}\n"
        "    Name to assign this image:Flat\n"
        "    Name to assign these objects:Cell\n"
        "    Select the image type:Grayscale image\n"
        "    Set intensity range from:Image metadata\n"
        "    Maximum intensity:255.0\n"
    )
    head, groups, rest = content.partition("\nGroups:[")
    content = (
        head.replace("Single images count:0", "Single images count:1") + single + groups + rest
    )
    job = equal_to_one_process(tmp_path, pipelines.write(tmp_path, content), folder)
    assert list(job.results("Image")["FileName_Flat"]) == ["flat field.tif"] * 2
    (folder / "flat field.tif").unlink()
    problems = labkit.CellProfiler(tmp_path / "test.cppipe", folder).check()
    assert "the image for all image sets is not there" in str([str(p) for p in problems])


def test_a_site_without_cells_fits_the_others(lab_home: Path, tmp_path: Path) -> None:
    """Alone in its task it has the same columns, also the means over no objects."""
    images, _ = example.make_plate(tmp_path / "img", 3, 1, size=160)
    for channel in ("DNA", "ER"):
        path = tmp_path / "img" / f"Plate1_A02_s1_{channel}.tif"
        Image.fromarray(np.zeros((160, 160), np.uint16)).save(path)
    means = "Calculate the per-image mean values for object measurements?"
    pipeline = pipelines.changed(example.ANALYSIS, tmp_path, (f"{means}:No", f"{means}:Yes"))
    job = finish(labkit.CellProfiler(pipeline, images, chunk_size=1), tmp_path / "runs")
    assert list(job.results("Image")["Count_Nuclei"] > 0) == [True, False, True]
    theirs = pipelines.one_process(pipeline, tmp_path / "whole", images)
    assert "Mean_Nuclei_AreaShape_Area" in theirs["Image"]
    for name in ("Image", "Nuclei", "Cells"):
        pipelines.assert_equal(job.results(name, places=False), theirs[name])
