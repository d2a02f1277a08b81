"""The documentation's pages, asked as the gate asks: what is shown, what never is, and to whom."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from labkit.base.problems import ProblemsError
from services.appkit.launch import Portal
from services.appkit.settings import FILE
from services.docs import files, library, markdown, settings
from services.docs.app import make_app
from services.docs.library import Library
from services.docs.settings import Section
from tests.services.docs.conftest import EVIL

PREFIX, SECRET = "/services/docs/", "0123456789abcdef" * 2
HTML = {"Accept": "text/html"}
Client = TestClient[web.Request, web.Application]
NEVER = ("zebrafish", "root:x:0")


def gate(name: str = "ada", groups: str = "imaging", admin: bool = False) -> dict[str, str]:
    """Return the gate's headers for a person."""
    return {
        **HTML,
        "X-Labhub-User": name,
        "X-Labhub-Groups": groups,
        "X-Labhub-Admin": "true" if admin else "false",
        "X-Labhub-App-Secret": SECRET,
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "docs--service.lab.example",
    }


def sops(folder: Path) -> Section:
    return Section(name="sops", title="SOPs", folder=folder / "sops")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The library's clock, which stands until it is moved."""
    now = [1000.0]
    monkeypatch.setattr("services.docs.library.time.monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


@pytest.fixture
async def client(documents: Path, clock: Callable[[float], None]) -> AsyncIterator[Client]:
    sections = [
        sops(documents),
        Section(name="site", title="Site", folder=documents / "site", groups=("imaging",)),
        Section(name="gone", title="Gone", folder=documents / "gone", groups=("imaging",)),
    ]
    async with TestClient(
        TestServer(make_app(Library(lambda: sections), Portal(PREFIX, SECRET)))
    ) as client:
        yield client


async def text_of(client: Client, path: str, **who: Any) -> tuple[int, str]:
    async with client.get(PREFIX + path, headers=gate(**who)) as answer:
        return answer.status, await answer.text()


async def test_a_document_is_shown_with_all_that_markdown_has(
    client: Client,
) -> None:
    status, page = await text_of(client, "sops/pcr/01_setup.md")
    assert status == 200
    assert "<title>PCR set-up" in page
    assert page.count("<h1") == 1
    for part in (
        '<td class="to-right">10</td>',
        'aria-label="to do">☐',
        'aria-label="done">☑',
        '<span class="hl-k">def</span>',
        '<div class="admonition warning">',
        'class="footnote-item"',
        'src="../pictures/gel%20one.png"',
        '<a href="#reagents">Reagents</a>',
        '<a href="/services/docs/sops/pcr/02_run.md">Run it</a>',
        '<a href="/services/docs/sops/pcr/10_clean.md">Clean</a>',
        "ada</span>",
    ):
        assert part in page, part
    # As people count, not as letters do.
    assert page.index("02_run") < page.index("10_clean")
    for file, kind in (("pictures/gel%20one.png", "image/png"), ("plan.pdf", "application/pdf")):
        async with client.get(f"{PREFIX}sops/{file}", headers=gate()) as answer:
            assert (answer.status, answer.content_type) == (200, kind)


async def test_folders_are_pages_too(client: Client) -> None:
    async with client.get(
        f"{PREFIX}sops/pcr?x=//evil", headers=gate(), allow_redirects=False
    ) as answer:
        assert answer.headers["Location"] == "/services/docs/sops/pcr/"
    _, listing = await text_of(client, "sops/pcr/")
    for name in ("PCR set-up", "Run it", "Clean"):
        assert name in listing
    _, top = await text_of(client, "sops/")
    assert "Begin with" in top and "plan.pdf" in top
    _, home = await text_of(client, "")
    assert "SOPs" in home and "its folder is not there" in home
    assert (await text_of(client, "sops/index.md/"))[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "sops/../secret.md",
        "sops/%2e%2e/secret.md",
        "sops/..%2fsecret.md",
        "sops/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "sops/pcr/%2e%2e/%2e%2e/secret.md",
        "sops//etc/passwd",
        "sops/%2fetc/passwd",
        "sops/..%5c..%5csecret.md",
        "sops/.hidden.md",
        "sops/.git/config",
        "sops/.git/",
        "sops/link.md",
        "sops/inside.md",
        "sops/up/secret.md",
        "sops/up/",
        "sops/pipe.md",
        "sops/%00",
        "sops/index.md%00.png",
        "sops/%ff",
        "sops/" + "x" * 300,
        "sops/" + "a/" * 200,
        "gone/",
        "none/",
        "_/static/..%2f..%2fkeys.py",
        "_/other",
    ],
)
async def test_nothing_else_is_shown(client: Client, path: str) -> None:
    from yarl import URL

    url = URL(f"http://127.0.0.1:{client.port}{PREFIX}{path}", encoded=True)
    async with client.session.get(url, headers=gate(), allow_redirects=False) as answer:
        text = await answer.text()
        assert answer.status == 404, text
    assert not [word for word in NEVER if word in text]


async def test_what_is_not_shown_is_not_found(
    client: Client,
) -> None:
    for words in ("zebrafish", "secret", "hidden", "config"):
        _, page = await text_of(client, f"_/search?q={words}")
        assert "No document has all these words" in page, words
    _, page = await text_of(client, "sops/")
    for name in ("hidden", "link.md", "inside.md", "pipe"):
        assert name not in page


async def test_search_finds_words_their_beginnings_and_no_accents(
    client: Client,
) -> None:
    for words in ("buffer", "muller mix", "MÜLLER", "reag", "rotors free", "pcr/01_setup"):
        _, page = await text_of(client, f"_/search?q={words}")
        assert "/services/docs/sops/pcr/01_setup.md" in page, words
    _, page = await text_of(client, "_/search?q=freezing")
    assert "<mark>Freezing</mark> cells" in page
    assert 'href="/services/docs/site/index.html">Evil site<' in page
    # Nothing of it is a command of the database, and nothing HTML.
    for words in ('"', "buffer OR", "NEAR(", "title:x", "a*b", "-", "';--", "<b>x</b>", "x" * 999):
        status, page = await text_of(client, f"_/search?q={words.replace('<', '%3C')}")
        assert status == 200, words
        assert "<b>x</b>" not in page


async def test_a_section_is_for_its_groups_alone(
    client: Client,
) -> None:
    for who in ({"groups": "plants"}, {"groups": ""}, {"groups": "imaging2"}):
        assert (await text_of(client, "site/", **who))[0] == 404
        assert (await text_of(client, "site/gel.png", **who))[0] == 404
        _, page = await text_of(client, "_/search?q=freezing", **who)
        assert "No document has" in page
        _, home = await text_of(client, "", **who)
        assert "Site" not in home and "SOPs" in home
    async with client.get(f"{PREFIX}site/", headers=gate(groups="", admin=True)) as answer:
        assert answer.status == 200


async def test_only_the_gate_may_ask_and_only_to_read(
    client: Client,
) -> None:
    for headers in (
        HTML,
        {**gate(), "X-Labhub-App-Secret": "0" * 32},
        {k: v for k, v in gate().items() if k != "X-Labhub-User"},
    ):
        for path in ("", "sops/index.md", "_/static/docs.css", "_/search?q=pcr"):
            async with client.get(PREFIX + path, headers=headers) as answer:
                assert answer.status == 403, path
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        async with client.request(method, f"{PREFIX}sops/index.md", headers=gate()) as answer:
            assert answer.status == 405
    with pytest.raises(ValueError, match="secret"):
        make_app(Library(list), Portal(PREFIX, "short"))


def test_no_html_of_a_document_acts() -> None:
    page = markdown.render(EVIL).body
    assert not re.search(r"<(script|style|iframe|form|input|button|svg|math|object|embed)", page)
    assert not re.search(r"<[^>]*\s(on\w+|style|srcdoc|formaction)\s*=", page)
    assert not re.search(r"<[^>]*(href|src)=\"(javascript|data|vbscript):", page)
    assert "notice" not in page
    assert '<a id="link" rel="noopener noreferrer">press</a>' in page


@pytest.mark.parametrize("path", ["sops/evil.md", "site/index.html", "site/evil.svg", "site/", ""])
async def test_no_answer_lets_a_script_run(client: Client, path: str) -> None:
    async with client.get(PREFIX + path, headers=gate()) as answer:
        rules = dict(
            rule.strip().partition(" ")[::2]
            for rule in answer.headers["Content-Security-Policy"].split(";")
        )
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert rules["script-src"] == "'none'"
    assert rules["default-src"] == "'none'"
    assert "allow-scripts" not in rules.get("sandbox", "")
    if path.endswith(("html", "svg")):
        assert "sandbox" in rules
    # On an origin that is shared, pictures and styles come from this app alone, too.
    assert rules.get("img-src", "").split(" ")[0] in (
        "",
        f"https://docs--service.lab.example{PREFIX}",
    )


async def test_scripts_of_a_site_are_text_and_the_unknown_is_a_download(
    client: Client,
) -> None:
    async with client.get(f"{PREFIX}site/evil.js", headers=gate()) as answer:
        assert answer.content_type == "text/plain"
    async with client.get(
        f"{PREFIX}sops/data.bin", headers={**gate(), "Range": "bytes=2-5"}
    ) as answer:
        assert (answer.status, await answer.read()) == (206, bytes([2, 3, 4, 5]))
        assert answer.headers["Content-Disposition"].startswith("attachment")


async def test_changes_show_without_a_restart(
    client: Client,
    documents: Path,
    clock: Callable[[float], None],
) -> None:
    page = documents / "sops" / "pcr" / "02_run.md"
    _, found = await text_of(client, "_/search?q=press+start")
    assert "02_run.md" in found
    page.write_text("# Run it slowly\n\nUse the lever.\n")
    (documents / "sops" / "new.md").write_text("# Quite new\n")
    (documents / "sops" / "pcr" / "10_clean.md").unlink()
    clock(3)
    _, found = await text_of(client, "_/search?q=press+start")
    assert "No document has" in found
    _, found = await text_of(client, "_/search?q=lever")
    assert "Run it slowly" in found
    _, top = await text_of(client, "sops/pcr/")
    assert "Run it slowly" in top and "Quite new" in top and "10_clean" not in top
    (documents / "gone").mkdir()
    clock(3)
    assert (await text_of(client, "gone/"))[0] == 200


def test_a_link_that_comes_between_look_and_read_leads_nowhere(
    documents: Path, clock: Callable[[float], None]
) -> None:
    folder = documents / "sops"
    (seen,) = [file for file in files.walk(folder) if file.path == "pcr/02_run.md"]
    (folder / "pcr").rename(folder / "old")
    (folder / "pcr").symlink_to("/etc")
    with pytest.raises(files.NoFileError):
        files.read_text(folder, seen.path, 100)
    with pytest.raises(files.NoFileError):
        files.read_text(folder, "pcr/passwd", 100)


def test_too_many_files_are_told(
    documents: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (files, library):
        monkeypatch.setattr(module, "MOST_FILES", 3)
    shelf = Library(lambda: [sops(documents)]).shelves()
    assert not shelf["sops"].complete


def test_a_file_that_the_account_may_not_read_does_not_stop_the_rest(
    documents: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(folder: Path, path: str) -> int:
        if path == "evil.md":
            raise PermissionError(path)
        return opened(folder, path)

    opened = files.open_below
    monkeypatch.setattr(files, "open_below", closed)
    shelf = Library(lambda: [sops(documents)]).shelves()
    assert shelf["sops"].entries["evil.md"].title == "Evil"  # of its name
    assert shelf["sops"].entries["pcr/01_setup.md"].title == "PCR set-up"


def test_settings_without_a_file_and_all_mistakes_of_one(tmp_path: Path) -> None:
    (only,) = settings.read(tmp_path)
    assert (only.name, only.folder) == ("pages", tmp_path / "pages")
    assert only.folder.is_dir()
    good = {"name": "sops", "title": "SOPs", "folder": "/shared/sops", "groups": ["imaging"]}
    (tmp_path / FILE).write_text(json.dumps({"sections": [good]}))
    assert settings.read(tmp_path)[0].groups == ("imaging",)
    wrong = {
        "sections": [
            {**good, "name": "_up", "folder": "sops", "groups": ["a,b"], "public": True},
            {"name": "b"},
        ]
    }
    (tmp_path / FILE).write_text(json.dumps(wrong))
    with pytest.raises(ProblemsError) as refused:
        settings.read(tmp_path)
    for place in ("0.name", "0.folder", "0.groups", "0.public", "1.title", "1.folder"):
        assert f"sections.{place}" in str(refused.value), place
    for text, said in (("{", "no JSON"), (json.dumps({"sections": [good, good]}), "named twice")):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(ProblemsError, match=said):
            settings.read(tmp_path)


def test_labhub_s_own_documentation_is_the_last_section(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    own, manual = settings.shown(tmp_path)
    assert (own.name, manual.name, manual.title) == ("pages", "labhub", "Labhub's help")
    found = Library(lambda: settings.shown(tmp_path))
    assert found.shelves()["labhub"].entries["how-to/documentation.md"].title == (
        "Show the lab's documents"
    )
    assert found.search("CellxGene", ["labhub"])
    lab_s = {"name": "labhub", "title": "Our help", "folder": "/shared/help"}
    (tmp_path / FILE).write_text(json.dumps({"sections": [lab_s]}))
    assert [section.title for section in settings.shown(tmp_path)] == ["Our help"]


def test_changed_settings_are_taken_up_and_wrong_ones_are_not(
    documents: Path,
    clock: Callable[[float], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def write(*sections: Mapping[str, object]) -> None:
        (tmp_path / FILE).write_text(json.dumps({"sections": sections}))
        clock(60)

    one = {"name": "sops", "title": "SOPs", "folder": str(documents / "sops")}
    two = {"name": "site", "title": "Site", "folder": str(documents / "site")}
    write(one)
    found = Library(lambda: settings.read(tmp_path))
    assert list(found.shelves()) == ["sops"]
    write(two, one)
    assert list(found.shelves()) == ["site", "sops"]
    assert found.search("freezing", ["site"])
    write({**one, "groups": "everybody"})
    assert list(found.shelves()) == ["site", "sops"]
    found.shelves()
    assert caplog.text.count("groups") == 1
    write(one)
    assert list(found.shelves()) == ["sops"]
    assert not found.search("freezing", ["site", "sops"])
