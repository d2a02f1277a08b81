"""Programs compiled from a source by a hashed lock: fetched, proved, compiled once."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hub.environments import build, image_files, source_build
from hub.environments.toolchain import BuildError
from hub.state.paths import REPOSITORY, Paths

NAME, VERSION = "tool-sys", "1.2.3"
PATH = f"{NAME}/{NAME}-{VERSION}.crate"
BUILD = '#!/bin/sh\nset -eu\necho "$1" >>"$2/built"\ncp "$1"/*/tool.c "$2/bin/tool"\n'
MANIFEST = f'[package]\nname = "{NAME}"\nversion = "{VERSION}"\n[lib]\npath = "lib.rs"\n'

needs_cargo = pytest.mark.skipif(not source_build.cargo(), reason="needs cargo")


def package(content: bytes = b"int main;", other: str = "") -> bytes:
    data = io.BytesIO()
    files = {"Cargo.toml": MANIFEST.encode(), "lib.rs": b"", "tool.c": content}
    named = {f"{NAME}-{VERSION}/{name}": text for name, text in files.items()}
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in named.items() if not other else [(other, content)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return data.getvalue()


class Registry:
    """A registry of one crate, as cargo asks it (a sparse index)."""

    def __init__(self, folder: Path) -> None:
        self.content = package()
        self.requests = 0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = registry.answer(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.image = folder / "images" / "tools"
        self.image.mkdir(parents=True)
        (self.image / "build").write_text(BUILD)
        (self.image / "build").chmod(0o755)
        self.lock()

    def answer(self, path: str) -> bytes | None:
        digest = hashlib.sha256(self.content).hexdigest()
        entry = {"name": NAME, "vers": VERSION, "deps": [], "features": {}, "yanked": False}
        files = {
            "/index/config.json": json.dumps({"dl": self.url + "/{crate}/{crate}-{version}.crate"}),
            f"/index/{NAME[:2]}/{NAME[2:4]}/{NAME}": json.dumps({**entry, "cksum": digest}) + "\n",
        }
        if path == f"/{PATH}":
            self.requests += 1
            return self.content
        return files[path].encode() if path in files else None

    def lock(self, path: str = PATH) -> None:
        digest = hashlib.sha256(self.content).hexdigest()
        (self.image / "sources.lock").write_text(f"{digest}  {path}\n")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    made = Registry(tmp_path)
    program = source_build.cargo()
    home = tmp_path / "cargo"
    home.mkdir()
    (home / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "lab"\n'
        f'[source.lab]\nregistry = "sparse+{made.url}/index/"\n'
    )
    monkeypatch.setenv("CARGO_HOME", str(home))
    monkeypatch.setattr(source_build, "cargo", lambda: program)
    monkeypatch.setattr(image_files, "IMAGES", made.image.parent)
    monkeypatch.setattr(image_files, "REPOSITORY", tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def builder(tmp_path: Path, registry: Registry) -> build.Environments:
    paths = Paths(state=tmp_path / "state", envs=tmp_path / "envs")
    (paths.envs / "tools" / "bin").mkdir(parents=True)
    paths.log.mkdir(parents=True)
    return build.Environments(paths)


@needs_cargo
def test_a_source_is_fetched_from_where_cargo_is_told_and_compiled_once(
    builder: build.Environments, registry: Registry
) -> None:
    builder._build_sources("tools", None)
    folder = builder.folder("tools")
    assert (folder / "bin" / "tool").read_text() == "int main;"
    assert not Path((folder / "built").read_text().strip()).exists()  # nothing is left of it
    builder._build_sources("tools", image_files.sources_digest("tools"))
    assert registry.requests == 1
    (registry.image / "build").write_text(BUILD + "# otherwise\n")
    builder._build_sources("tools", "what it was before")
    assert len((folder / "built").read_text().splitlines()) == 2
    assert registry.requests == 1  # cargo's cache has it


@needs_cargo
def test_a_source_that_is_not_what_the_lock_says_is_never_compiled(
    builder: build.Environments, registry: Registry
) -> None:
    registry.content = package(content=b"int evil;")
    with pytest.raises(BuildError, match="is not what the lock says"):
        builder._build_sources("tools", None)
    assert not (builder.folder("tools") / "built").exists()


@needs_cargo
def test_a_registry_that_does_not_answer_is_told_with_cargo_s_words(
    builder: build.Environments, registry: Registry
) -> None:
    registry.lock("other-sys/other-sys-1.0.0.crate")
    with pytest.raises(BuildError, match=r"no matching package(.|\n)*other-sys"):
        builder._build_sources("tools", None)


def test_without_cargo_the_package_that_brings_it_is_named(
    builder: build.Environments, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_build, "cargo", lambda: None)
    assert build.packages_missing("tools") in (["cargo"], ["cargo-web"])
    with pytest.raises(BuildError, match=r"needs cargo, .* apt-get install -y cargo"):
        builder._build_sources("tools", None)
    (registry.image / "sources.lock").unlink()
    assert build.packages_missing("tools") == []


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape", "tool/../../escape"])
def test_an_archive_cannot_write_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "x.crate"
    archive.write_bytes(package(other=name))
    with pytest.raises(BuildError, match="escape', which is not unpacked"):
        source_build.unpack(archive, tmp_path / "sources")
    assert not (tmp_path / "sources").exists()


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.crate"
    with tarfile.open(archive, mode="w:gz") as made:
        link = tarfile.TarInfo("tool-sys-1.2.3/tool.c")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    with pytest.raises(BuildError, match="which is not unpacked"):
        source_build.unpack(archive, tmp_path)


@pytest.mark.parametrize(
    "path", ["../x/x-1.crate", "tool-sys/tool-sys.crate", "a/b-1.tar.gz", "a/b-1.crate", ""]
)
def test_a_lock_that_cannot_be_read_is_refused(registry: Registry, path: str) -> None:
    registry.lock(path)
    with pytest.raises(BuildError, match="line 1: not '<sha256>"):
        source_build.read_lock(registry.image / "sources.lock")


@needs_cargo
def test_a_build_that_fails_is_told_with_its_log(
    builder: build.Environments, registry: Registry
) -> None:
    (registry.image / "build").write_text("#!/bin/sh\necho no compiler here >&2\nexit 3\n")
    with pytest.raises(BuildError, match="no compiler here"):
        builder._build_sources("tools", None)


def test_alignment_s_own_lock_can_be_read() -> None:
    lock = REPOSITORY / "images" / "alignment" / "sources.lock"
    assert [source.name for source in source_build.read_lock(lock)] == ["bwa-mem2-sys"]
