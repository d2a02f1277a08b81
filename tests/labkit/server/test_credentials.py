"""What passes between server and app, attacked without a server."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders

from labkit.relay.credentials import AppCookies, confine_cookie, inside, strip_headers, strip_query

CONTEXT = "/user/ada/proxy/5005"


def stripped(headers: dict[str, str], **kwargs: object) -> HTTPHeaders:
    found = HTTPHeaders(headers)
    options = {"secrets": {"s3cret"}, "context": CONTEXT, "app_made": lambda _: False}
    strip_headers(found, **{**options, **kwargs})  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("cookies", "kept"),
    [
        ("session=1", "session=1"),
        ("jupyterhub-user-ada=x; session=1; _xsrf=2", "session=1"),
        ("jupyterhub-session-id=x", None),
        ("__Host-jupyterhub-user-ada=x; a=b", "a=b"),
        ("jupyterhub-user-ada-oauth-state-XyZ=x; a=b", "a=b"),
        (" session = 1 ;; b=2", "session = 1; b=2"),
        ("not-jupyterhub-x=1", "not-jupyterhub-x=1"),
    ],
)
def test_cookies_of_hub_and_server_stay_here(cookies: str, kept: str | None) -> None:
    assert stripped({"Cookie": cookies}).get("Cookie") == kept


def test_login_cookies_of_all_servers_of_the_host_stay_here() -> None:
    cookies = "username-localhost-8888=x; username-localhost-8889=y; username=app"
    found = stripped({"Cookie": cookies}, login_cookie="username-localhost-8888")
    assert found["Cookie"] == "username=app"


def test_several_cookie_headers_are_all_looked_at() -> None:
    headers = HTTPHeaders()
    headers.add("Cookie", "a=1")
    headers.add("Cookie", "jupyterhub-session-id=x; b=2")
    strip_headers(headers, secrets=(), context=CONTEXT, app_made=lambda _: False)
    assert headers.get_list("Cookie") == ["a=1; b=2"]


def test_an_app_keeps_its_own_xsrf_cookie() -> None:
    known = AppCookies()
    known.remember(CONTEXT, "_xsrf=app")
    found = stripped(
        {"Cookie": "_xsrf=app; _xsrf=hub"}, app_made=lambda cookie: known.made(CONTEXT, cookie)
    )
    assert found["Cookie"] == "_xsrf=app"
    assert not known.made("/user/ada/proxy/6006", "_xsrf=app")


def test_what_apps_set_is_remembered_within_bounds() -> None:
    known = AppCookies()
    for number in range(1000):
        known.remember(CONTEXT, f"_xsrf={number}")
    assert known.made(CONTEXT, "_xsrf=999")
    assert not known.made(CONTEXT, "_xsrf=0")


@pytest.mark.parametrize("scheme", ["token", "Bearer", "TOKEN", "bearer "])
def test_a_token_of_ours_is_no_header_for_the_app(scheme: str) -> None:
    assert "Authorization" not in stripped({"Authorization": f"{scheme} s3cret"})


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer of-the-app", "token other"])
def test_the_apps_own_authorization_passes(value: str) -> None:
    assert stripped({"Authorization": value})["Authorization"] == value


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("token=s3cret", ""),
        ("a=1&token=s3cret&b=%20+", "a=1&b=%20+"),
        ("%74oken=s3%63ret&a", "a"),
        ("token=app", "token=app"),
        ("x-token=s3cret", "x-token=s3cret"),
        ("token=s3cret&token=app", "token=app"),
    ],
)
def test_a_token_of_ours_leaves_the_query(query: str, kept: str) -> None:
    assert strip_query(query, {"s3cret"}) == kept


def test_the_referer_tells_no_secrets_of_other_pages() -> None:
    outside = stripped({"Referer": "http://h/user/ada/lab?token=elder"})
    assert outside["Referer"] == "http://h/user/ada/lab"
    own = stripped({"Referer": f"http://h{CONTEXT}/?a=1&token=s3cret"})
    assert own["Referer"] == f"http://h{CONTEXT}/?a=1"


@pytest.mark.parametrize(
    ("cookie", "confined"),
    [
        ("session=1; Path=/", f"session=1; Path={CONTEXT}/"),
        ("session=1", f"session=1; Path={CONTEXT}/"),
        ("a=1; path=/sub; HttpOnly", f"a=1; Path={CONTEXT}/sub; HttpOnly"),
        ("a=1; Domain=lab.example.org; Path=/", f"a=1; Path={CONTEXT}/"),
        ("a=1; DOMAIN=.localhost; Secure", f"a=1; Path={CONTEXT}/; Secure"),
        (f"a=1; Path={CONTEXT}/x", f"a=1; Path={CONTEXT}/x"),
        ("a=1; Path=/user/ada/proxy/50055", f"a=1; Path={CONTEXT}/user/ada/proxy/50055"),
        ("a=1; Path=/; Path=/user/ada", f"a=1; Path={CONTEXT}/user/ada"),
        ("a=1; Path=relative", f"a=1; Path={CONTEXT}/"),
        ("jupyterhub-user-ada=evil; Path=/", None),
        ("__Host-jupyterhub-session-id=evil; Path=/; Secure", None),
        ("username-localhost-8888=evil; Path=/", None),
        ("_xsrf=app; Path=/", f"_xsrf=app; Path={CONTEXT}/"),
    ],
)  # fmt: skip
def test_an_apps_cookie_stays_below_its_prefix(cookie: str, confined: str | None) -> None:
    remembered: list[str] = []
    found = confine_cookie(
        cookie,
        context=CONTEXT,
        path="/",
        remember=remembered.append,
        login_cookie="username-localhost-8888",
    )
    assert found == confined
    assert remembered == (["_xsrf=app"] if cookie.startswith("_xsrf") else [])


def test_a_cookie_without_path_belongs_to_the_folder_that_was_asked_for() -> None:
    found = confine_cookie("a=1", context=CONTEXT, path="/deep/page", remember=lambda _: None)
    assert found == f"a=1; Path={CONTEXT}/deep"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", f"{CONTEXT}/"),
        ("/login?next=/", f"{CONTEXT}/login?next=/"),
        (f"{CONTEXT}/login", f"{CONTEXT}/login"),
        (f"{CONTEXT}?x", f"{CONTEXT}?x"),
        (f"{CONTEXT}5/x", f"{CONTEXT}{CONTEXT}5/x"),
        ("x", f"{CONTEXT}/x"),
    ],
)
def test_paths_get_the_prefix_once(path: str, found: str) -> None:
    assert inside(CONTEXT, path) == found
