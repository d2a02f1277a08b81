"""The texts: every link leads somewhere, and nothing names one machine or one registry."""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

import hub.cli
import labkit.cli
from tests.support.portal import REPOSITORY

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_BINARY = {".png", ".gz", ".h5ad", ".tif", ".tiff", ".npz"}

# Built from pieces, so that this file does not match itself.
_FORBIDDEN = {
    "a package registry's host": re.compile(
        "|".join(
            re.escape(".".join(host))
            for host in (
                ("pypi", "org"),
                ("pythonhosted", "org"),
                ("registry", "npmjs", "org"),
                ("registry", "yarnpkg", "com"),
                ("conda", "anaconda", "org"),
                ("deb", "debian", "org"),
                ("archive", "ubuntu", "com"),
                ("docker", "io"),
                ("ghcr", "io"),
                ("quay", "io"),
                ("crates", "io"),
                ("repo", "maven", "apache", "org"),
                ("repo1", "maven", "org"),
                ("proxy", "golang", "org"),
            )
        )
    ),
    "a path of one machine": re.compile(
        r"(?<![\w./-])/(?:" + "|".join(("work/" + "main", "opt/" + "lh", "root/" + r"\.")) + ")"
    ),
}


def tracked() -> list[Path]:
    """Return the files of the repository; where there is no git, those that are there."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs a git clone")
    paths = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def anchors(text: str) -> set[str]:
    """Return the places of a Markdown file, named as GitHub and GitLab name them."""
    found = re.findall(r"(?m)^#+\s+(.*?)\s*$", re.sub(r"(?s)```.*?```", "", text))
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in found)
    return {title.replace(" ", "-") for title in words}


def pages() -> list[Path]:
    return [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.is_relative_to(REPOSITORY) or not place.exists():
            broken.append(target)
        elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text()):
            broken.append(f"{target} (there is no such heading)")
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    left = [REPOSITORY / "README.md"]
    while left:
        page = left.pop()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        for target in _LINK.findall(page.read_text()):
            name = target.partition("#")[0]
            if name.endswith(".md") and ":" not in name:
                left.append((page.parent / name).resolve())
    lost = [page for page in pages() if page not in seen]
    assert [str(page.relative_to(REPOSITORY)) for page in lost] == []


def test_code_and_tests_that_the_texts_name_exist() -> None:
    names = {path.name for path in tracked()}
    lost = []
    for page in (REPOSITORY / "docs").rglob("*.md"):
        text = page.read_text()
        tests = re.findall(r"`(?:[\w/]+/)?(test_[a-z_]+\.py)`", text)
        paths = re.findall(r"`((?:hub|labkit|tests|images|config)/[\w/.-]+)`", text)
        lost += [f"{page.name}: {name}" for name in tests if name not in names]
        lost += [f"{page.name}: {path}" for path in paths if not (REPOSITORY / path).exists()]
    assert lost == []


def test_the_walks_name_modules_that_exist_and_go_on() -> None:
    text = (REPOSITORY / "docs" / "development" / "walk.md").read_text()
    titles = re.findall(r"(?m)^## (.*)$", text)
    assert [re.sub("`", "", title) for title in titles] == [
        "From a cell's submit() to a record on a node",
        "From login to a running server",
        "From service.yaml to an app behind the gate",
    ]
    for walk in re.split(r"(?m)^## ", text)[1:]:
        modules = re.findall(r"`((?:hub|labkit|services)/[\w/]+\.py)`", walk)
        assert len(modules) > 10
        assert [name for name in modules if not (REPOSITORY / name).is_file()] == []
        again = {name for name in modules if modules.count(name) > 1}
        assert len(again) <= 1, f"a walk goes on, and does not come back to {again}"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page.read_text())


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_code_blocks_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "ya?ml"):
        list(YAML(typ="safe").load_all(block))


def test_some_code_blocks_are_there() -> None:
    assert [block for page in pages() for block in blocks(page, "python")]


_COMMAND = re.compile(r"(?:sudo (?:-E )?)?(?:\./)?(labhub|labkit) ([a-z].*)")


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Return the commands that a page's code begins with, each with its words."""
    text = page.read_text()
    code = re.findall(r"`([^`\n]+)`", text)
    code += re.findall(r"(?m)^ {4}(\S.*)$", "".join(re.findall(r"\n\n((?: {4}.*\n)+)", text)))
    code += [line for block in blocks(page, "(?:sh|bash|console)?") for line in block.splitlines()]
    return [
        (match[1], re.split(r"\s#|[;|&]|, ", match[2])[0].split())
        for line in code
        if (match := _COMMAND.match(line))
    ]


def labhub_refuses(words: list[str]) -> str:
    """Return why labhub has no such command or option, or nothing."""
    if words[0] not in hub.cli.COMMANDS:
        return f"labhub has no command {words[0]!r}"
    command: click.Command | None = hub.cli.cli.get_command(click.Context(hub.cli.cli), words[0])
    rest = words[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    assert command is not None
    if isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z-]+", rest[0]):
        return f"{command.name} has no command {rest[0]!r}"
    if command.context_settings.get("ignore_unknown_options"):
        return ""
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    wrong = [word for word in rest if re.match(r"--?[a-z]", word)]
    wrong = [word for word in wrong if word.partition("=")[0] not in {*known, "--help", "-h"}]
    return f"{' '.join(words)}: no option {wrong}" if wrong else ""


def labkit_refuses(words: list[str]) -> str:
    """Return why labkit has no such command or option, or nothing."""
    parser, rest = labkit.cli._parser(), words
    while groups := [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]:
        if not rest:
            return ""  # a group of commands, named as such
        if rest[0] not in groups[0].choices:
            return f"{parser.prog} has no command {rest[0]!r}"
        parser, rest = groups[0].choices[rest[0]], rest[1:]
    known = set(parser._option_string_actions)
    wrong = [word for word in rest if re.match(r"--?[a-z]", word)]
    wrong = [word for word in wrong if word.partition("=")[0] not in known]
    return f"{' '.join(words)}: no option {wrong}" if wrong else ""


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_commands_that_a_page_names_exist(page: Path) -> None:
    refuses = {"labhub": labhub_refuses, "labkit": labkit_refuses}
    wrong = [refuses[program](words) for program, words in commands(page)]
    assert [reason for reason in wrong if reason] == []


def test_commands_that_do_not_exist_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Call\n\n    sudo ./labhub up --fast  #\n\nOr `labkit show NAME --json`, or `labhub fly`\n"
    )
    by_name = {words[0]: words for _, words in commands(page)}
    assert labhub_refuses(by_name["up"]) == "up --fast: no option ['--fast']"
    assert labkit_refuses(by_name["show"]) == ""
    assert labhub_refuses(by_name["fly"]) == "labhub has no command 'fly'"


@pytest.mark.parametrize("what", _FORBIDDEN)
def test_no_file_names(what: str) -> None:
    found = []
    for path in tracked():
        if path.suffix in _BINARY:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if _FORBIDDEN[what].search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}")
    assert found == []
