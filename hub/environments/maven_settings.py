"""Where Maven gets its artifacts: read from Maven's own configuration, never from ours.

``LABHUB_MAVEN``, else the mirror of *central* in the user's or the installation's ``settings.xml``,
else the address that the installed Maven itself has for *central* (in its super POM).
Standard library only, as `hub.environments.build`.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import urllib.parse
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from hub.environments.toolchain import BuildError

_SUPER_POM = "pom-4.0.0.xml"
_HINT = "apt-get install -y maven, or name the repository: LABHUB_MAVEN=https://..."


@dataclass(frozen=True)
class Repository:
    """The repository that stands for *central*.

    Attributes
    ----------
    url : str
        Its address, without a slash at its end; may carry a user and a password.
    proxy : str
        Address of the proxy that Maven uses for it; empty: none but the process' own.
    """

    url: str
    proxy: str = ""


def read() -> Repository:
    """Return where artifacts come from, as Maven itself would decide.

    Raises
    ------
    BuildError
        Nothing says where, or a password is encrypted for Maven alone.
    """
    named = os.environ.get("LABHUB_MAVEN")
    if named:
        return Repository(named.rstrip("/"))
    settings = [tree for tree in map(_parse, _settings_files()) if tree is not None]
    identity, url = _mirror(settings) or ("central", "")
    url = url or _default()
    user, password = _credentials(settings, identity)
    return Repository(_with_credentials(url, user, password), _proxy(settings, url))


def _home() -> Path | None:
    """Return the folder of the installed Maven."""
    program = shutil.which("mvn")
    return Path(program).resolve().parent.parent if program else None


def _settings_files() -> list[Path]:
    """Return the settings, the stronger first."""
    files = []
    with contextlib.suppress(RuntimeError):  # a user without a home
        files.append(Path.home() / ".m2" / "settings.xml")
    home = _home()
    return [*files, home / "conf" / "settings.xml"] if home else files


def _parse(file: Path) -> ElementTree.Element | None:
    try:
        return ElementTree.parse(file).getroot()  # noqa: S314 -- one's own
    except FileNotFoundError:
        return None
    except (OSError, ElementTree.ParseError) as error:
        raise BuildError(f"Maven's settings {file} cannot be read: {error}") from None


def _text(element: ElementTree.Element, name: str) -> str:
    """Return a child's text, with the process' variables in place of ``${env.NAME}``."""
    text = (element.findtext(f"{{*}}{name}") or "").strip()
    return re.sub(r"\$\{env\.(\w+)\}", lambda match: os.environ.get(match[1], match[0]), text)


def _mirror(settings: list[ElementTree.Element]) -> tuple[str, str] | None:
    """Return identity and address of the first mirror that stands for *central*."""
    for tree in settings:
        for mirror in tree.iterfind(".//{*}mirrors/{*}mirror"):
            names = _text(mirror, "mirrorOf").replace(" ", "").split(",")
            url = _text(mirror, "url")
            if url and "!central" not in names and {"*", "external:*", "central"} & set(names):
                return _text(mirror, "id"), url.rstrip("/")
    return None


def _default() -> str:
    """Return the address of *central* that the installed Maven was delivered with."""
    home = _home()
    for jar in sorted(home.glob("lib/maven-*.jar")) if home else ():
        with zipfile.ZipFile(jar) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] == _SUPER_POM:
                    tree = ElementTree.fromstring(archive.read(name))  # noqa: S314 -- Maven's
                    for repository in tree.iterfind(".//{*}repositories/{*}repository"):
                        if _text(repository, "id") == "central":
                            return _text(repository, "url").rstrip("/")
    raise BuildError(f"nothing says where Java programs come from: {_HINT}")


def _credentials(settings: list[ElementTree.Element], identity: str) -> tuple[str, str]:
    for tree in settings:
        for server in tree.iterfind(".//{*}servers/{*}server"):
            if _text(server, "id") != identity:
                continue
            password = _text(server, "password")
            if re.search(r"\{.+\}", password):
                raise BuildError(
                    f"the password of {identity!r} in Maven's settings is encrypted for Maven "
                    "alone; give the address in LABHUB_MAVEN instead"
                )
            return _text(server, "username"), password
    return "", ""


def _with_credentials(url: str, user: str, password: str) -> str:
    if not user or "@" in urllib.parse.urlsplit(url).netloc:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{urllib.parse.quote(user, '')}:{urllib.parse.quote(password, '')}@{rest}"


def _proxy(settings: list[ElementTree.Element], url: str) -> str:
    """Return the first active proxy of the settings, unless it is not for this host."""
    host = urllib.parse.urlsplit(url).hostname or ""
    for tree in settings:
        for proxy in tree.iterfind(".//{*}proxies/{*}proxy"):
            if (_text(proxy, "active") or "true") != "true":
                continue
            without = re.split(r"[|,]", _text(proxy, "nonProxyHosts"))
            if any(fnmatch.fnmatch(host, pattern.strip()) for pattern in without):
                return ""
            address = f"http://{_text(proxy, 'host')}:{_text(proxy, 'port') or '8080'}"
            return _with_credentials(address, _text(proxy, "username"), _text(proxy, "password"))
    return ""
