"""What the lab file says about a provider arrives in oauthenticator's own settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tornado import web
from traitlets.config import Config

from hub import auth
from hub.labfile.read import parse
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError

SECRET = "a-client-secret-for-tests"


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here needs root but the check that the portal has it."""
    monkeypatch.setattr("hub.auth.os.geteuid", lambda: 0)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "secrets").mkdir(mode=0o700)
    write_secret(tmp_path, SECRET)
    return Paths(tmp_path, tmp_path / "envs")


def write_secret(state: Path, text: str, mode: int = 0o600) -> None:
    file = state / "secrets" / "oauth_client_secret"
    file.write_text(text)
    file.chmod(mode)


def lab(method: str, oauth: str) -> str:
    return (
        "url: https://lab.example\nadmins: [boss]\nauthentication:\n"
        f"  method: {method}\n  oauth: {{client_id: the-id, {oauth}}}\n"
    )


def made(method: str, oauth_text: str, paths: Paths) -> Any:
    """Return the authenticator as the hub would make it."""
    c = Config()
    auth.configure(c, parse(lab(method, oauth_text)), paths, as_one_account=True)
    c.Authenticator.admin_users = {"boss"}
    return c.JupyterHub.authenticator_class(config=c)


METHODS = {
    "oidc": "issuer: 'https://id.example', allow_all: true",
    "cognito": "issuer: 'https://cognito-idp.eu-west-1.amazonaws.com/p', allow_all: true",
    "github": "allowed_organizations: [the-lab]",
    "google": "hosted_domains: [uni.example]",
    "globus": "allowed_users: [ada]",
    "cilogon": "allow_all: true, allowed_idps: ['https://id.uni.example/idp']",
}


@pytest.mark.parametrize("method", METHODS)
def test_what_all_have(method: str, paths: Paths) -> None:
    authenticator = made(method, METHODS[method], paths)
    assert authenticator.client_id == "the-id"
    assert authenticator.client_secret == SECRET
    assert authenticator.enable_pkce is True
    assert authenticator.oauth_callback_url == "https://lab.example/hub/oauth_callback"
    assert authenticator.allow_existing_users is False
    assert authenticator.login_service
    assert authenticator.validate_server_cert is True
    assert SECRET not in repr(authenticator)


def test_github_asks_for_the_organizations(paths: Paths) -> None:
    authenticator = made("github", METHODS["github"], paths)
    assert authenticator.scope == ["read:org"]
    assert authenticator.allowed_organizations == {"the-lab"}
    assert authenticator.user_info_to_username({"login": "Ada-L", "id": 7}) == "ada-l"


def test_google_takes_the_domain_off_and_only_that(paths: Paths) -> None:
    from hub.auth.identity import PlainRefusal

    authenticator = made("google", METHODS["google"], paths)
    info = {"email": "Ada.Lovelace@uni.example", "hd": "uni.example", "verified_email": True}
    assert authenticator.user_info_to_username(info) == "ada-lovelace"
    assert info["domain"] == "uni.example"
    with pytest.raises(PlainRefusal, match="ada@gmail"):
        authenticator.user_info_to_username({"email": "ada@gmail.example"})


def test_globus_does_not_cut_any_domain_off(paths: Paths) -> None:
    from hub.auth.identity import PlainRefusal

    authenticator = made("globus", METHODS["globus"], paths)
    with pytest.raises(PlainRefusal, match="hosted_domains"):
        authenticator.user_info_to_username({"preferred_username": "ada@orcid.example"})
    authenticator = made("globus", "hosted_domains: [uni.example]", paths)
    assert authenticator.user_info_to_username({"preferred_username": "ada@uni.example"}) == "ada"


def test_cilogon_refuses_other_identity_providers(paths: Paths) -> None:
    from hub.auth.identity import PlainRefusal

    text = METHODS["cilogon"] + ", hosted_domains: [uni.example]"
    authenticator = made("cilogon", text, paths)
    info = {"idp": "https://id.uni.example/idp", "eppn": "ada@uni.example"}
    assert authenticator.user_info_to_username(info) == "ada"
    with pytest.raises(web.HTTPError, match="not pre-configured"):
        authenticator.user_info_to_username({**info, "idp": "https://evil.example/idp"})
    with pytest.raises(PlainRefusal, match="sent no 'eppn'"):
        authenticator.user_info_to_username({"idp": "https://id.uni.example/idp"})


async def test_cognito_has_groups_in_its_id_token(paths: Paths) -> None:
    text = METHODS["cognito"] + ", groups_claim: 'cognito:groups', allowed_groups: [lab]"
    authenticator = made("cognito", text, paths)
    assert authenticator.user_info_to_username({"username": "ada"}) == "ada"
    for value, groups in ((["lab", "x"], {"lab", "x"}), ("lab", {"lab"}), (None, set())):
        state = {authenticator.user_auth_state_key: {"cognito:groups": value}}
        assert await authenticator.get_user_groups(state) == groups


def problems_of(method: str, oauth_text: str, paths: Paths) -> str:
    with pytest.raises(ProblemsError) as caught:
        auth.configure(Config(), parse(lab(method, oauth_text)), paths, as_one_account=True)
    return str(caught.value)


def test_what_cannot_work_is_refused_all_at_once(paths: Paths) -> None:
    (paths.secrets / "oauth_client_secret").unlink()
    text = problems_of(
        "github",
        "allow_all: true, groups_claim: groups, hosted_domains: [a.example, b.example]",
        paths,
    )
    assert "the client's secret from the provider is missing" in text
    assert "github sends no groups" in text
    assert "would both become ada" in text


@pytest.mark.parametrize(
    ("method", "oauth_text", "expected"),
    [
        ("google", "allow_all: true", "name the one domain"),
        ("cilogon", "allow_all: true", "entity ids"),
        ("oidc", "issuer: 'http://id.example', allow_all: true", "travel in clear"),
        ("oidc", "issuer: 'https://id.example', allowed_groups: [lab]", "needs groups_claim"),
        ("oidc", METHODS["oidc"] + ", allowed_organizations: [x]", "has no organizations"),
    ],
)
def test_what_cannot_work(method: str, oauth_text: str, expected: str, paths: Paths) -> None:
    assert expected in problems_of(method, oauth_text, paths)


def test_groups_come_from_one_place(paths: Paths) -> None:
    text = lab("oidc", METHODS["oidc"] + ", groups_claim: groups") + "groups: {imaging: [ada]}\n"
    with pytest.raises(ProblemsError, match="all groups come from the provider"):
        auth.configure(Config(), parse(text), paths, as_one_account=True)


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("", 0o600, "is empty"),
        ("change-me\n", 0o600, "holds a sample"),
        (SECRET, 0o640, r"other accounts can read it \(mode 640\)"),
    ],
)
def test_a_secret_that_is_none(text: str, mode: int, expected: str, paths: Paths) -> None:
    write_secret(paths.state, text, mode)
    with pytest.raises(ProblemsError, match=expected) as caught:
        auth.configure(
            Config(), parse(lab("github", METHODS["github"])), paths, as_one_account=True
        )
    assert SECRET not in str(caught.value)


GOOD: dict[str, Any] = {
    "issuer": "https://id.example",
    "authorization_endpoint": "https://id.example/a",
    "token_endpoint": "https://id.example/t",
    "jwks_uri": "https://id.example/j",
}


def test_a_good_description_passes() -> None:
    from hub.auth.oidc import checked

    assert checked(GOOD, "https://id.example/") == GOOD


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"issuer": "https://evil.example"}, "says that it is https://evil.example"),
        ({"token_endpoint": None}, "does not tell its token_endpoint"),
        ({"token_endpoint": "http://id.example/t"}, "without https"),
        ({"userinfo_endpoint": "http://id.example/u"}, "without https"),
    ],
)
def test_a_bad_description_is_refused(change: dict[str, Any], expected: str) -> None:
    from hub.auth.oidc import DiscoveryError, checked

    with pytest.raises(DiscoveryError, match=expected):
        checked({**GOOD, **change}, "https://id.example")
    with pytest.raises(DiscoveryError):
        checked([], "https://id.example")


def test_every_method_of_the_schema_has_a_class() -> None:
    from hub.auth import oauth

    assert set(oauth.CLASSES) == set(METHODS)
