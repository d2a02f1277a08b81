"""Programs compiled from a source by a hashed lock: fetched, proved, compiled once."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hub.environments import build, source_build
from hub.environments.toolchain import BuildError
from hub.state.paths import REPOSITORY, Paths

PATH = "tool-sys/tool-sys-1.2.3.crate"
BUILD = '#!/bin/sh\nset -eu\necho "$1" >>"$2/built"\ncp "$1"/*/tool.c "$2/bin/tool"\n'


def package(name: str = "tool-sys-1.2.3/tool.c", content: bytes = b"int main;") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


class Registry:
    """A registry of one crate."""

    def __init__(self, folder: Path) -> None:
        self.content = package()
        self.asked = 0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked += 1
                if self.path != f"/crates/{PATH}":
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(registry.content)))
                self.end_headers()
                self.wfile.write(registry.content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/crates"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.image = folder / "images" / "tools"
        self.image.mkdir(parents=True)
        (self.image / "build").write_text(BUILD)
        (self.image / "build").chmod(0o755)
        self.lock()

    def lock(self, path: str = PATH) -> None:
        digest = hashlib.sha256(self.content).hexdigest()
        (self.image / "sources.lock").write_text(f"{digest}  {path}\n")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    made = Registry(tmp_path)
    monkeypatch.setenv("LABHUB_CRATES", made.url)
    monkeypatch.setattr(build, "IMAGES", made.image.parent)
    monkeypatch.setattr(build, "REPOSITORY", tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def builder(tmp_path: Path, registry: Registry) -> build.Environments:
    paths = Paths(state=tmp_path / "state", envs=tmp_path / "envs")
    (paths.envs / "tools" / "bin").mkdir(parents=True)
    paths.log.mkdir(parents=True)
    return build.Environments(paths)


def test_a_source_is_proved_and_compiled_once(
    builder: build.Environments, registry: Registry
) -> None:
    builder._build_sources("tools", None)
    folder = builder.folder("tools")
    assert (folder / "bin" / "tool").read_text() == "int main;"
    assert not Path((folder / "built").read_text().strip()).exists()  # nothing is left of it
    builder._build_sources("tools", build._sources_digest("tools"))
    assert registry.asked == 1
    (registry.image / "build").write_text(BUILD + "# otherwise\n")
    builder._build_sources("tools", "what it was before")
    assert len((folder / "built").read_text().splitlines()) == 2


def test_a_source_that_is_not_what_the_lock_says_is_never_compiled(
    builder: build.Environments, registry: Registry
) -> None:
    registry.content = package(content=b"int evil;")
    with pytest.raises(BuildError, match="is not what the lock says"):
        builder._build_sources("tools", None)
    assert not (builder.folder("tools") / "built").exists()


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape", "tool/../../escape"])
def test_an_archive_cannot_write_outside_of_its_folder(
    builder: build.Environments, registry: Registry, name: str
) -> None:
    registry.content = package(name)
    registry.lock()
    with pytest.raises(BuildError, match="escape', which is not unpacked"):
        builder._build_sources("tools", None)
    assert not (builder.folder("tools") / "built").exists()


def test_an_archive_with_a_link_is_refused(builder: build.Environments, registry: Registry) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        link = tarfile.TarInfo("tool-sys-1.2.3/tool.c")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    registry.content = data.getvalue()
    registry.lock()
    with pytest.raises(BuildError, match="which is not unpacked"):
        builder._build_sources("tools", None)


@pytest.mark.parametrize("path", ["../x/x-1.crate", "tool-sys/tool-sys.crate", "a/b-1.tar.gz", ""])
def test_a_lock_that_cannot_be_read_is_refused(registry: Registry, path: str) -> None:
    registry.lock(path)
    with pytest.raises(BuildError, match="line 1: not '<sha256>"):
        source_build.read_lock(registry.image / "sources.lock")


def test_a_build_that_fails_is_told_with_its_log(
    builder: build.Environments, registry: Registry
) -> None:
    (registry.image / "build").write_text("#!/bin/sh\necho no compiler here >&2\nexit 3\n")
    with pytest.raises(BuildError, match="no compiler here"):
        builder._build_sources("tools", None)


def test_alignment_s_own_lock_can_be_read() -> None:
    lock = REPOSITORY / "images" / "alignment" / "sources.lock"
    assert [path.partition("/")[0] for _, path in source_build.read_lock(lock)] == ["bwa-mem2-sys"]
