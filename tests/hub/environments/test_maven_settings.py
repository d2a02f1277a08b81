"""Where Java programs come from: Maven's own settings and defaults, and nothing of ours."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hub.environments import maven_settings
from hub.environments.maven_settings import Repository
from hub.environments.toolchain import BuildError

NAMESPACE = 'xmlns="http://maven.apache.org/SETTINGS/1.0.0"'
CENTRAL = "https://central.example/maven2"
SUPER_POM = f"""<project><repositories><repository>
    <id>central</id><url>{CENTRAL}/</url></repository></repositories></project>"""


def mirror(name: str, of: str) -> str:
    url = f"https://m.example/{name}/"
    return f"<mirror><id>{name}</id><url>{url}</url><mirrorOf>{of}</mirrorOf></mirror>"


def write(file: Path, *parts: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<settings {NAMESPACE}>{''.join(parts)}</settings>")


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of a Maven that is installed, for a user without settings."""
    home = tmp_path / "maven"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "mvn").write_text("#!/bin/sh\n")
    (home / "bin" / "mvn").chmod(0o755)
    (home / "lib").mkdir()
    with zipfile.ZipFile(home / "lib" / "maven-model-builder-3.x.jar", "w") as archive:
        archive.writestr("org/apache/maven/model/pom-4.0.0.xml", SUPER_POM)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "mvn").symlink_to(home / "bin" / "mvn")
    monkeypatch.delenv("LABHUB_MAVEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return home


def test_without_settings_maven_s_own_default_is_used(maven: Path) -> None:
    assert maven_settings.read() == Repository(CENTRAL)


def test_the_user_s_mirror_comes_before_the_installation_s(maven: Path, tmp_path: Path) -> None:
    write(maven / "conf" / "settings.xml", "<mirrors>", mirror("lab", "central"), "</mirrors>")
    assert maven_settings.read().url == "https://m.example/lab"
    user = tmp_path / ".m2" / "settings.xml"
    mirrors = mirror("other", "*,!central") + mirror("all", "external:*")
    write(user, "<mirrors>", mirrors, "</mirrors>")
    assert maven_settings.read().url == "https://m.example/all"


def test_the_variable_comes_before_all(maven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABHUB_MAVEN", "https://lab.example/maven/")
    assert maven_settings.read() == Repository("https://lab.example/maven")


def test_settings_that_cannot_be_read_are_told_rather_than_passed_over(
    maven: Path, tmp_path: Path
) -> None:
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("not XML")
    with pytest.raises(BuildError, match=r"settings\.xml cannot be read"):
        maven_settings.read()


def test_without_maven_and_settings_the_next_step_is_told(
    maven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BuildError, match="apt-get install -y maven"):
        maven_settings.read()


def test_a_server_s_password_is_used_also_from_a_variable(
    maven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = "<server><id>lab</id><username>me</username><password>{}</password></server>"
    user = tmp_path / ".m2" / "settings.xml"
    mirrors = f"<mirrors>{mirror('lab', '*')}</mirrors>"
    monkeypatch.setenv("LAB_PASSWORD", "hunter@2")
    write(user, mirrors, "<servers>", server.format("${env.LAB_PASSWORD}"), "</servers>")
    assert maven_settings.read().url == "https://me:hunter%402@m.example/lab"
    write(user, mirrors, "<servers>", server.format("{c2VjcmV0}"), "</servers>")
    with pytest.raises(BuildError, match="encrypted for Maven alone"):
        maven_settings.read()


@pytest.mark.parametrize(
    ("active", "without", "proxy"),
    [
        ("true", "localhost|*.lab.example", "http://proxy.example:3128"),
        ("true", "localhost|*.example", ""),
        ("false", "", ""),
    ],
)
def test_the_settings_proxy_is_used_unless_it_is_not_for_this_host(
    maven: Path, tmp_path: Path, active: str, without: str, proxy: str
) -> None:
    write(
        tmp_path / ".m2" / "settings.xml",
        f"<proxies><proxy><active>{active}</active><host>proxy.example</host><port>3128</port>",
        f"<nonProxyHosts>{without}</nonProxyHosts></proxy></proxies>",
    )
    assert maven_settings.read() == Repository(CENTRAL, proxy)
