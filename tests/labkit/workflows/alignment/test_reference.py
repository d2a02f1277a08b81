"""References: made once, whole or not at all, by one of several makers, fetched once per node."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import labkit
from labkit.base.problems import LabkitError, RefusedError
from labkit.jobs.model import State
from labkit.workflows.alignment import Reference
from labkit.workflows.alignment.task_code import cache, pipe
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment.conftest import Data
from tests.support.job_helpers import until

pytestmark = [needs_env("alignment"), pytest.mark.usefixtures("lab_home")]


class Said(list[str]):
    """What a maker told."""

    def __call__(self, text: str) -> None:
        self.append(text)

    @property
    def made(self) -> int:
        return sum("making the index" in text for text in self)


def test_fasta_dictionary_and_index_are_made_once(data: Data, tmp_path: Path) -> None:
    said = Said()
    reference = labkit.Reference(data.fasta, cache=tmp_path / "refs")
    assert reference.contigs == {"chrA": 60_000, "chrB": 25_000, "chrM": 5_000}
    assert not reference.ready("bwa")
    prefix = reference.index("bwa", tell=said)
    assert reference.ready("bwa")
    assert prefix.with_suffix(".bwt").is_file()
    fasta = prefix.parent.parent / "fasta" / "reference.fa"
    assert fasta.read_bytes() == data.fasta.read_bytes()
    assert (fasta.parent / "reference.fa.fai").read_text().startswith("chrA\t60000\t")
    assert "SN:chrB\tLN:25000\tM5:" in (fasta.parent / "reference.dict").read_text()
    assert json.loads((prefix.parent / "made.json").read_text())["bwa"]
    assert reference.index("bwa", tell=said) == prefix
    assert said.made == 1


def test_the_same_sequence_is_the_same_reference_under_any_name(data: Data, tmp_path: Path) -> None:
    said = Said()
    refs = tmp_path / "refs"
    one = Reference(data.fasta, cache=refs).index("bwa", tell=said)
    packed = tmp_path / "other.fasta.gz"
    packed.write_bytes(gzip.compress(data.fasta.read_bytes()))
    assert Reference(packed, cache=refs).index("bwa", tell=said) == one
    assert said.made == 1
    changed = Path(shutil.copy(data.fasta, tmp_path / "changed.fa"))
    reference = Reference(changed, cache=refs)
    assert reference.index("bwa", tell=said) == one
    changed.write_bytes(changed.read_bytes() + b">more\nACGTACGTAC\n")
    assert Reference(changed, cache=refs).index("bwa", tell=said) != one


@pytest.mark.parametrize("aligner", ["bwa-mem2", "minimap2"])
def test_other_aligners_have_their_own_index_beside(
    data: Data, tmp_path: Path, aligner: str
) -> None:
    refs = tmp_path / "refs"
    prefix = Reference(data.fasta, cache=refs).index(aligner)
    wanted = {"bwa-mem2": ("bwa-mem2", ".bwt.2bit.64"), "minimap2": ("minimap2-map-ont", ".mmi")}
    part, suffix = wanted[aligner]
    assert prefix.parent.name == part
    assert Path(f"{prefix}{suffix}").is_file()


def test_two_makers_at_once_make_one_index(data: Data, tmp_path: Path) -> None:
    told = [Said(), Said(), Said()]

    def make(said: Said) -> Path:
        return Reference(data.fasta, cache=tmp_path / "refs").index("bwa", tell=said)

    with ThreadPoolExecutor(3) as makers:
        found = set(makers.map(make, told))
    assert len(found) == 1
    assert sum(said.made for said in told) == 1
    assert sum("reading the reference" in text for said in told for text in said) == 1


SLOW = 'if [ "$1" = index ]; then touch {mark}; sleep 60; fi\nexec "$REAL" "$@"'


def test_a_maker_that_is_killed_leaves_nothing_half_and_the_next_goes_on(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, refs = tmp_path / "mark", tmp_path / "refs"
    envs = helpers.environment(tmp_path, {"bwa": SLOW.replace("{mark}", str(mark))})
    code = f"import labkit; labkit.Reference({str(data.fasta)!r}, cache={str(refs)!r}).index('bwa')"
    maker = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "LABHUB_ENVS": str(envs)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        until(mark.is_file)
        assert list(refs.glob(".making-*"))
    finally:
        os.killpg(maker.pid, signal.SIGKILL)
        maker.wait(10)
    said = Said()
    reference = Reference(data.fasta, cache=refs)
    assert not reference.ready("bwa")
    reference.index("bwa", tell=said)
    assert reference.ready("bwa")
    assert [text for text in said if "reading" in text] == []  # the FASTA was whole already


def test_an_index_that_lost_a_file_is_made_again(data: Data, tmp_path: Path) -> None:
    reference = Reference(data.fasta, cache=tmp_path / "refs")
    prefix = reference.index("bwa")
    prefix.with_suffix(".sa").unlink()
    assert not reference.ready("bwa")
    assert reference.index("bwa") == prefix
    assert prefix.with_suffix(".sa").is_file()


def test_each_node_fetches_it_once_from_a_shared_folder(
    data: Data, tmp_path: Path, lab_home: Path
) -> None:
    shared, local = tmp_path / "shared", tmp_path / "node"
    reference = Reference(data.fasta, cache=shared, local=local)
    job = helpers.run(helpers.Streams(data.rows, reference, aligner="bwa"))
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    key = next(path.name for path in shared.iterdir() if len(path.name) == 32)
    for place in (shared, local):
        assert (place / key / "bwa" / "made.json").is_file()
        assert (place / key / "fasta" / "reference.fa").is_file()
    # another node: its disk is empty, and the shared folder gives it everything
    other, said = Reference(data.fasta, cache=shared, local=tmp_path / "node2"), Said()
    with ThreadPoolExecutor(3) as tasks:
        list(tasks.map(lambda _: other.index("bwa", tell=said), range(3)))
    assert said.made == 0
    assert sum("fetching bwa" in text for text in said) == 1
    assert sum("fetching fasta" in text for text in said) == 1


def test_what_the_store_holds_is_not_believed_blindly(data: Data, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    prefix = Reference(data.fasta, cache=shared).index("bwa")
    made = prefix.parent / "made.json"
    content = json.loads(made.read_text())
    prefix.with_suffix(".sa").write_bytes(b"short")
    content["files"]["reference.sa"] = 5
    made.write_text(json.dumps(content))
    digest = content["digest"]
    prefix.with_suffix(".sa").write_bytes(b"other size")
    store = cache.Cache(tmp_path / "node", str(shared))
    with pytest.raises(pipe.Failed, match="has not the 5 bytes"):
        store.get(digest, "bwa")
    assert not store.has(digest, "bwa")
    content["files"] = {"../../../escape": 5}
    made.write_text(json.dumps(content))
    with pytest.raises(pipe.Failed, match=r"is named '\.\./\.\./\.\./escape'"):
        store.get(digest, "bwa")
    assert not (tmp_path / "escape").exists()


def test_a_node_that_does_not_see_the_cache_is_told_what_to_do(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs, broken = tmp_path / "refs", tmp_path / "broken"
    broken.touch()
    script = f'[ "$1" = sort ] && [ -e {broken} ] && exit 4\nexec "$REAL" "$@"'
    monkeypatch.setenv("LABHUB_ENVS", str(helpers.environment(tmp_path, {"samtools": script})))
    reference = Reference(data.fasta, cache=refs)
    job = helpers.run(helpers.Streams(data.rows, reference, aligner="bwa"), retries=0)
    assert job.state is State.FAILED
    shutil.rmtree(refs)  # the stage before has seen it, the next one's node does not
    broken.unlink()
    job.retry().wait(60)
    (failed,) = job.failed().to_dict("records")
    assert failed["reason"] == "INPUT"
    assert "on a disk that all nodes share" in failed["text"]
    reference.index("bwa")
    assert job.retry().wait(60).state is State.SUCCEEDED


def test_a_folder_that_somebody_else_made_on_scratch_is_not_used(tmp_path: Path) -> None:
    mine = cache.node_folder(tmp_path)
    assert mine == cache.node_folder(tmp_path)
    assert mine.stat().st_mode & 0o777 == 0o700
    mine.chmod(0o777)
    with pytest.raises(pipe.Failed, match="is not a folder of yours alone"):
        cache.node_folder(tmp_path)
    mine.rmdir()
    mine.symlink_to("/tmp")
    with pytest.raises(pipe.Failed, match="is not a folder of yours alone"):
        cache.node_folder(tmp_path)
    if os.geteuid() == 0:
        mine.unlink()
        mine.mkdir(0o700)
        os.chown(mine, 12345, 12345)
        with pytest.raises(pipe.Failed, match="is not a folder of yours alone"):
            cache.node_folder(tmp_path)


def test_what_cannot_be_made_is_told_by_its_cause(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Reference(data.fasta, cache=tmp_path / "refs")
    with pytest.raises(RefusedError, match="Did you mean 'bwa-mem2'"):
        reference.index("bwamem2")
    with pytest.raises(RefusedError, match="there is no file"):
        Reference(tmp_path / "missing.fa").index("bwa")
    script = 'if [ "$1" = index ]; then echo "out of memory" >&2; exit 9; fi\nexec "$REAL" "$@"'
    envs = helpers.environment(tmp_path, {"bwa": script})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    with pytest.raises(LabkitError, match=r"out of memory \(index of bwa ended with code 9\)"):
        reference.index("bwa")
    script = 'if [ "$1" = index ]; then exit 0; fi\nexec "$REAL" "$@"'
    monkeypatch.setenv("LABHUB_ENVS", str(helpers.environment(tmp_path / "2", {"bwa": script})))
    with pytest.raises(LabkitError, match=r"bwa wrote no \.amb, \.ann"):
        reference.index("bwa")
    assert not list((tmp_path / "refs").glob(".making-*"))


def test_bwa_is_the_default_where_the_environment_lacks_bwa_mem2(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.workflows.alignment.reference import default_aligner

    assert default_aligner() == "bwa-mem2"
    envs = helpers.environment(tmp_path, {})
    (envs / "alignment" / "bin" / "bwa-mem2").unlink()
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    assert default_aligner() == "bwa"
    assert labkit.Alignment(data.rows, data.fasta).plan("local").tool == "alignment bwa"
