"""labkit data: the same from a terminal."""

from __future__ import annotations

import urllib.request
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from labkit import cli


def test_data_from_a_terminal(
    s3: Any, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "plate"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("one")
    (source / "sub/b").write_text("two")
    top = f"s3://{bucket}/plate/"

    def said(*words: str) -> str:
        assert cli.main(["data", *words]) == cli.SUCCESS
        return capsys.readouterr().out

    assert said("copy", f"{source}/", top) == "2 files, 6 bytes.\n"
    assert [line.split()[-1] for line in said("list", top).splitlines()] == [
        f"{top}a",
        f"{top}sub/",
    ]
    assert f"{top}sub/b" in said("list", "-r", top)
    assert said("checksum", f"{top}a").split()[0] == sha256(b"one").hexdigest()
    with urllib.request.urlopen(said("link", f"{top}a", "--valid", "5 min").strip()) as answer:
        assert answer.read() == b"one"

    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for text in ("first", "second"):
        s3.put_object(Bucket=bucket, Key="plate/c", Body=text.encode())
    current, first = said("versions", f"{top}c").splitlines()
    assert current.endswith("current")
    said("restore", f"{top}c", first.split()[0])
    said("copy", f"{top}c", str(tmp_path / "c"))
    assert (tmp_path / "c").read_text() == "first"

    assert cli.main(["data", "list", "s3://no-such-bucket-of-ours/"]) == cli.FAILED
    assert "there is no such bucket" in capsys.readouterr().err
