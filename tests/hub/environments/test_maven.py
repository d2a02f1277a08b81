"""Jars by a hashed lock: from a real HTTP server, exactly, again after an interruption."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hub.environments import build, image_files
from hub.environments import maven as jars
from hub.environments.toolchain import BuildError
from hub.state.paths import Paths
from tests.support.portal import REPOSITORY

FILES = {f"org/made/up-{n}/1.{n}/up-{n}-1.{n}.jar": bytes([n]) * (1000 + n) for n in range(12)}


class Maven:
    """A Maven repository on this machine that can be told to misbehave."""

    def __init__(self) -> None:
        self.files = {f"/maven2/{path}": content for path, content in FILES.items()}
        self.requests: Counter[str] = Counter()
        self.authorized: set[str | None] = set()
        self.busy: set[str] = set()  # answer 503 once
        self.down: set[str] = set()  # answer 404
        maven = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                maven.requests[self.path] += 1
                maven.authorized.add(self.headers["Authorization"])
                content = maven.files.get(self.path)
                if self.path in maven.busy:
                    maven.busy.remove(self.path)
                    self.send_error(503)
                elif content is None or self.path in maven.down:
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/maven2"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch) -> Iterator[Maven]:
    made = Maven()
    monkeypatch.setenv("LABHUB_MAVEN", made.url)
    monkeypatch.setattr("hub.environments.maven.time.sleep", lambda _: None)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "jars.lock"
    lines = [f"{hashlib.sha256(c).hexdigest()}  {p}\n" for p, c in FILES.items()]
    file.write_text("".join(reversed(lines)))  # an order that is nobody's but its own
    return file


def silent(_: str) -> None:
    """Say nothing."""


def have(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_lock_is_installed_exactly_and_in_its_order(
    maven: Maven, lock: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder"
    (folder / "org").mkdir(parents=True)
    (folder / "org" / "of-an-older-lock.jar").write_text("old")
    said: list[str] = []
    jars.install(lock, folder, said.append)
    found = have(folder)
    words = found.pop(jars.CLASS_PATH).decode()
    assert found == FILES
    places = [str(folder / path) for path in reversed(list(FILES))]
    assert words == f'-cp "{":".join(places)}"\n'
    assert said == [f"fetching 12 of 12 jars from {maven.url}"]


def test_what_is_there_is_not_fetched_again(maven: Maven, lock: Path, tmp_path: Path) -> None:
    folder = tmp_path / "java"
    gone = "/maven2/" + list(FILES)[5]
    maven.down.add(gone)
    with pytest.raises(BuildError, match=r"1 of 12 jars .*\n.*up-5-1.5.jar: 404"):
        jars.install(lock, folder, silent)
    assert not (folder / jars.CLASS_PATH).exists()
    maven.down.clear()
    damaged = folder / list(FILES)[2]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = maven.requests.copy()
    jars.install(lock, folder, silent)
    assert maven.requests - before == Counter({gone: 1, "/maven2/" + list(FILES)[2]: 1})
    assert have(folder).items() >= FILES.items()


def test_a_repository_that_is_busy_is_asked_again(maven: Maven, lock: Path, tmp_path: Path) -> None:
    maven.busy = set(list(maven.files)[:3])
    jars.install(lock, tmp_path / "java", silent)
    assert sorted(maven.requests.values()) == [1] * 9 + [2] * 3


def test_a_jar_that_is_not_what_the_lock_says_is_refused(
    maven: Maven, lock: Path, tmp_path: Path
) -> None:
    forged = next(iter(FILES))
    maven.files["/maven2/" + forged] = b"other bytes"
    with pytest.raises(BuildError, match=r"up-0-1\.0\.jar: is not what the lock says"):
        jars.install(lock, tmp_path / "java", silent)
    assert forged not in have(tmp_path / "java")
    assert not list((tmp_path / "java").rglob("*.part"))


@pytest.mark.parametrize(
    "path",
    ["../../etc/evil.jar", "/etc/evil.jar", "a/../../evil.jar", "a/b c.jar", 'a/b".jar', "a/b.sh"],
)
def test_a_lock_cannot_name_a_place_outside(lock: Path, tmp_path: Path, path: str) -> None:
    lock.write_text(f"{'0' * 64}  {path}\n")
    with pytest.raises(BuildError, match="line 1: not"):
        jars.install(lock, tmp_path / "java", silent)


def test_a_password_in_the_address_is_used_and_not_told(
    maven: Maven, monkeypatch: pytest.MonkeyPatch, lock: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setenv("LABHUB_MAVEN", maven.url.replace("//", "//me:hunter%402@"))
    maven.down.add("/maven2/" + next(iter(FILES)))
    with pytest.raises(BuildError) as refused:
        jars.install(lock, tmp_path / "java", said.append)
    assert maven.authorized == {"Basic bWU6aHVudGVyQDI="}  # me:hunter@2
    monkeypatch.setenv("LABHUB_MAVEN", "http://me:hunter%402@127.0.0.1:9/maven2")
    with pytest.raises(BuildError) as unreachable:
        jars.install(lock, tmp_path / "java", said.append)
    assert len(said) == 2
    assert "hunter" not in f"{said} {refused.value} {unreachable.value}"


@pytest.mark.slow
def test_an_environment_gets_its_jars_and_their_programs(
    maven: Maven, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "images" / "made-up"
    (image / "bin").mkdir(parents=True)
    (image / "requirements.lock").touch()
    lock.rename(image / "jars.lock")
    program = image / "bin" / "made-up"
    program.write_text('#!/bin/sh\nexec head -c 3 "$(dirname "$0")/../share/java/class-path"\n')
    program.chmod(0o755)
    monkeypatch.setattr(image_files, "IMAGES", tmp_path / "images")
    paths = Paths(tmp_path / "state", tmp_path / "envs")
    (tmp_path / "images" / "uv").symlink_to(REPOSITORY / "images" / "uv")
    made = build.Environments(paths)
    assert made.build("made-up")
    assert made.is_current("made-up")
    installed = made.folder("made-up") / "bin" / "made-up"
    assert subprocess.check_output([installed]) == b"-cp"
    program.write_text("#!/bin/sh\necho newer\n")
    assert made.build("made-up")
    assert subprocess.check_output([installed]) == b"newer\n"
    (image / "jars.lock").write_text((image / "jars.lock").read_text().splitlines()[0] + "\n")
    assert made.build("made-up")
    assert len(have(made.folder("made-up") / "share" / "java")) == 2
    assert not made.build("made-up")
