"""The proxy in a real Jupyter server, before real small apps."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from labkit.base.ports import free_port
from tests.labkit.server.conftest import BASE, TOKEN, App, Server, wait_for

MB = 1 << 20


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    app = App()

    @app.on("*", "/echo{rest:.*}")
    async def echo(request: web.Request) -> web.Response:
        body = await request.read()
        return web.json_response(
            {
                "method": request.method,
                "path": request.raw_path,
                "headers": [[k, v] for k, v in request.headers.items()],
                "length": len(body),
                "sha": hashlib.sha256(body).hexdigest(),
                "chunked": "Transfer-Encoding" in request.headers,
            }
        )

    @app.on("HEAD", "/big/{size}")
    async def head(request: web.Request) -> web.Response:
        return web.Response(headers={"Content-Length": request.match_info["size"]})

    @app.on("GET", "/big/{size}")
    async def big(request: web.Request) -> web.StreamResponse:
        size = int(request.match_info["size"])
        response = web.StreamResponse()
        if "chunked" not in request.query:
            response.content_length = size
        await response.prepare(request)
        piece = bytes(MB)
        app.notes["sent"] = 0
        while app.notes["sent"] < size:
            await response.write(piece)
            app.notes["sent"] += len(piece)
        return response

    @app.on("POST", "/sink")
    async def sink(request: web.Request) -> web.Response:
        total = 0
        app.notes["received"] = 0
        if "slow" in request.query:
            await asyncio.sleep(1.5)
        async for chunk in request.content.iter_any():
            total += len(chunk)
            app.notes["received"] = total
        return web.json_response({"length": total})

    @app.on("GET", "/slow")
    async def slow(_: web.Request) -> web.Response:
        app.notes["slow"] = "began"
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            app.notes["slow"] = "cancelled"
            raise
        return web.Response()

    @app.on("GET", "/events")
    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(0.4)
        return response

    @app.on("GET", "/status/{code}")
    async def status(request: web.Request) -> web.Response:
        code = int(request.match_info["code"])
        return web.Response(status=code, headers={"ETag": '"abc"', "X-App": "yes"})

    @app.on("GET", "/gzip")
    async def zipped(_: web.Request) -> web.Response:
        return web.Response(
            body=gzip.compress(b"cells" * 1000),
            headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"},
        )

    @app.on("GET", "/redirect")
    async def redirect(request: web.Request) -> web.Response:
        target = request.query["to"].replace("PORT", str(app.port))
        target = target.replace("HOST", request.headers["Host"])
        return web.Response(status=302, headers={"Location": target})

    @app.on("GET", "/cookies")
    async def cookies(_: web.Request) -> web.Response:
        response = web.Response(text="set")
        response.headers.add("Set-Cookie", "session=1; Path=/; Max-Age=1576800000")
        response.headers.add("Set-Cookie", "jupyterhub-user-ada=evil; Path=/")
        response.headers.add("Set-Cookie", "_xsrf=of-the-app; Path=/; Domain=127.0.0.1")
        response.headers["Clear-Site-Data"] = '"*"'
        response.headers["Service-Worker-Allowed"] = "/"
        return response

    @app.on("POST", "/refuse")
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=413, text="too much for me")

    @app.on("GET", "/broken")
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a part")
        assert request.transport is not None
        request.transport.abort()
        return response

    app.start()
    yield app
    app.stop()


def connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)


AUTH = {"Authorization": f"token {TOKEN}"}


def path(app: App, rest: str) -> str:
    return f"{BASE}proxy/{app.port}{rest}"


# -- both ways, any size ---------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?chunked"])
def test_download_of_300_mb_with_flat_memory(server: Server, app: App, query: str) -> None:
    server.reset_rss()
    before = server.rss()
    connection = connect(server)
    connection.request("GET", path(app, f"/big/{300 * MB}{query}"), headers=AUTH)
    answer = connection.getresponse()
    total = 0
    while chunk := answer.read(MB):
        total += len(chunk)
    assert total == 300 * MB
    assert server.rss() - before < 40 * MB


@pytest.mark.parametrize("chunked", [False, True])
def test_upload_of_300_mb_with_flat_memory(server: Server, app: App, chunked: bool) -> None:
    server.reset_rss()
    before = server.rss()
    connection = connect(server)
    size = 0 if chunked else 300 * MB
    headers = {**AUTH, **({} if chunked else {"Content-Length": str(size)})}
    connection.request(
        "POST", path(app, "/sink"), body=(bytes(MB) for _ in range(300)), headers=headers
    )
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read() == b'{"length": 314572800}'
    assert server.rss() - before < 40 * MB


def test_a_slow_reader_slows_the_app(server: Server, app: App) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        raw.sendall(request_text(path(app, f"/big/{300 * MB}")))
        assert raw.recv(1000)
        time.sleep(1)
        sent = app.notes["sent"]
        assert 0 < sent < 100 * MB
        time.sleep(0.5)
        assert app.notes["sent"] - sent < 4 * MB


def test_a_slow_app_slows_the_sender(server: Server, app: App) -> None:
    server.reset_rss()
    before = server.rss()
    connection = connect(server)
    headers = {**AUTH, "Content-Length": str(100 * MB)}
    connection.request(
        "POST", path(app, "/sink?slow"), body=(bytes(MB) for _ in range(100)), headers=headers
    )
    assert connection.getresponse().read() == b'{"length": 104857600}'
    assert server.rss() - before < 40 * MB


def request_text(where: str, method: str = "GET", extra: str = "") -> bytes:
    lines = [f"{method} {where} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: token {TOKEN}"]
    return ("\r\n".join([*lines, extra]) + "\r\n").encode()


def test_the_body_reaches_the_app_while_it_is_sent(server: Server, app: App) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(request_text(path(app, "/sink"), "POST", "Content-Length: 2000\r\n"))
        raw.sendall(b"a" * 1000)
        wait_for(lambda: app.notes.get("received") == 1000)
        raw.sendall(b"b" * 1000)
        answer = b""
        while b'{"length": 2000}' not in answer:
            piece = raw.recv(10_000)
            assert piece, answer
            answer += piece


def test_expect_100_continue(server: Server, app: App) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        extra = "Expect: 100-continue\r\nContent-Length: 5\r\n"
        raw.sendall(request_text(path(app, "/echo"), "POST", extra))
        assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")
        raw.sendall(b"hello")
        answer = b""
        while b'"length": 5' not in answer:
            answer += raw.recv(65536)
        assert b"Expect" not in answer


def test_an_upload_that_breaks_off_is_no_upload(server: Server, app: App) -> None:
    app.notes["received"] = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(request_text(path(app, "/sink"), "POST", "Transfer-Encoding: chunked\r\n"))
        raw.sendall(b"3e8\r\n" + b"a" * 1000 + b"\r\n")
        wait_for(lambda: app.notes["received"] == 1000)
    wait_for(lambda: app.seen[-1].transport is None)
    with server.client() as client:  # the server is well
        assert client.get(f"proxy/{app.port}/echo").status_code == 200


def test_an_early_refusal_reaches_the_sender(server: Server, app: App) -> None:
    connection = connect(server)
    headers = {**AUTH, "Content-Length": str(20 * MB)}
    connection.request("POST", path(app, "/refuse"), body=bytes(20 * MB), headers=headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (413, b"too much for me")
    # and the connection is either closed or good for the next request
    connection.request("GET", path(app, "/echo"), headers=AUTH)
    assert connection.getresponse().status == 200


def test_who_is_not_logged_in_cannot_send(server: Server, app: App) -> None:
    app.seen.clear()
    connection = connect(server)
    connection.request("POST", path(app, "/sink"), body=bytes(MB))
    assert connection.getresponse().status == 403
    assert app.seen == []


# -- what HTTP asks for ----------------------------------------------------------------


def test_methods_pass(server: Server, app: App) -> None:
    with server.client() as client:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            body = b"x" if method != "GET" else b""
            found = client.request(method, f"proxy/{app.port}/echo", content=body).json()
            assert (found["method"], found["length"]) == (method, len(body))
        assert client.options(f"proxy/{app.port}/echo").json()["method"] == "OPTIONS"


def test_head_keeps_the_length_and_has_no_body(server: Server, app: App) -> None:
    with server.client() as client:
        answer = client.head(f"proxy/{app.port}/big/{5 * MB}")
        assert answer.headers["Content-Length"] == str(5 * MB)
        assert answer.content == b""
        assert client.get(f"proxy/{app.port}/echo").status_code == 200


@pytest.mark.parametrize("code", [204, 304, 404, 500])
def test_status_and_headers_pass(server: Server, app: App, code: int) -> None:
    with server.client() as client:
        answer = client.get(f"proxy/{app.port}/status/{code}")
        assert answer.status_code == code
        assert answer.headers["ETag"] == '"abc"'
        assert answer.headers["X-App"] == "yes"
        assert "Transfer-Encoding" not in answer.headers or code not in (204, 304)
        assert client.get(f"proxy/{app.port}/echo").status_code == 200


def test_compressed_answers_pass_unchanged(server: Server, app: App) -> None:
    connection = connect(server)
    connection.request("GET", path(app, "/gzip"), headers=AUTH)
    answer = connection.getresponse()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.read()) == b"cells" * 1000


def test_paths_and_queries_pass_as_they_are(server: Server, app: App) -> None:
    connection = connect(server)
    connection.request("GET", path(app, "/echo/a%2Fb%20c/%C3%A9?q=%2F+&q=2"), headers=AUTH)
    text = connection.getresponse().read().decode()
    assert "/echo/a/b%20c/%C3%A9?q=%2F+&q=2" in text  # Tornado decodes %2F, as stock


def test_headers_of_other_alphabets_pass(server: Server, app: App) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        extra = "X-Name: caf\u00e9 \u6e2c\r\n"
        raw.sendall(request_text(path(app, "/echo"), extra=extra))
        answer = b""
        while b'"chunked"' not in answer:
            answer += raw.recv(65536)
        assert b"caf\\u00e9 \\u6e2c" in answer


def test_hop_by_hop_headers_stay_here(server: Server, app: App) -> None:
    with server.client() as client:
        headers = {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "TE": "trailers", "X-End": "2"}
        found = client.get(f"proxy/{app.port}/echo", headers=headers).json()["headers"]
    names = {name.lower() for name, _ in found}
    assert not names & {"x-hop", "te", "keep-alive"}
    assert "x-end" in names


def test_events_are_not_held_back(server: Server, app: App) -> None:
    connection = connect(server)
    connection.request("GET", path(app, "/events"), headers=AUTH)
    answer = connection.getresponse()
    times = []
    while answer.readline():
        times.append(time.monotonic())
        answer.readline()
    assert len(times) == 3
    assert times[1] - times[0] > 0.2


def test_a_broken_answer_does_not_look_whole(server: Server, app: App) -> None:
    connection = connect(server)
    connection.request("GET", path(app, "/broken"), headers=AUTH)
    answer = connection.getresponse()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()


def test_a_browser_that_leaves_ends_the_apps_work(server: Server, app: App) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(request_text(path(app, "/slow")))
        wait_for(lambda: app.notes.get("slow") == "began")
    wait_for(lambda: app.notes["slow"] == "cancelled")


def test_fifty_at_once_share_connections(server: Server, app: App) -> None:
    app.seen.clear()
    with server.client() as client, ThreadPoolExecutor(50) as pool:
        for _ in range(4):
            answers = list(pool.map(lambda n: client.get(f"proxy/{app.port}/echo?{n}"), range(50)))
            assert {answer.status_code for answer in answers} == {200}
    assert len({id(request.transport) for request in app.seen}) <= 60
    assert len(app.seen) == 200


# -- what must not pass ----------------------------------------------------------------


def test_tokens_and_login_cookies_do_not_reach_the_app(server: Server, app: App) -> None:
    login = f"username-127-0-0-1-{server.port}"
    headers = {
        "Cookie": f"{login}=stolen; jupyterhub-session-id=a; _xsrf=b; session=of-the-app",
        "Referer": f"{server.base}lab?token={TOKEN}",
    }
    with server.client() as client:
        found = client.get(f"proxy/{app.port}/echo?token={TOKEN}&x=1", headers=headers)
    text = found.text
    assert found.json()["path"] == "/echo?x=1"
    assert TOKEN not in text
    assert "stolen" not in text
    cookies = [v for k, v in found.json()["headers"] if k == "Cookie"]
    assert cookies == ["session=of-the-app"]


def test_the_apps_own_token_passes(server: Server, app: App) -> None:
    with server.client() as client:
        client.get("api/status")  # sets the login cookie
        cookies = dict(client.cookies)
    with server.client(headers={"Authorization": "Bearer of-the-app"}) as client:
        client.cookies.update(cookies)
        client.headers["Authorization"] = "Bearer of-the-app"
        found = client.get(f"proxy/{app.port}/echo").json()
    assert ["Authorization", "Bearer of-the-app"] in found["headers"]


def test_cookies_of_the_app_are_bound_to_it(server: Server, app: App) -> None:
    with server.client() as client:
        answer = client.get(f"proxy/{app.port}/cookies")
        set_by_app = [
            c for c in answer.headers.get_list("Set-Cookie") if not c.startswith("username-")
        ]
        assert sorted(set_by_app) == [
            f"_xsrf=of-the-app; Path={BASE}proxy/{app.port}/",
            f"session=1; Path={BASE}proxy/{app.port}/; Max-Age=1576800000",
        ]
        assert "Clear-Site-Data" not in answer.headers
        assert answer.headers["Service-Worker-Allowed"] == f"{BASE}proxy/{app.port}/"
        headers = {"Cookie": "_xsrf=of-the-app; _xsrf=of-the-server"}
        found = client.get(f"proxy/{app.port}/echo", headers=headers).json()["headers"]
        assert ["Cookie", "_xsrf=of-the-app"] in found


@pytest.mark.parametrize(
    ("to", "found"),
    [
        ("/next?a=1", "{prefix}/next?a=1"),
        ("next", "next"),
        ("{prefix}/next", "{prefix}/next"),
        ("http://localhost:PORT/next", "{prefix}/next"),
        ("http://HOST/next", "{prefix}/next"),
        ("https://elsewhere.example/next", "https://elsewhere.example/next"),
        ("//elsewhere.example/next", "//elsewhere.example/next"),
    ],
)
def test_redirects_stay_with_the_app(server: Server, app: App, to: str, found: str) -> None:
    prefix = f"{BASE}proxy/{app.port}"
    with server.client() as client:
        answer = client.get(f"proxy/{app.port}/redirect", params={"to": to.format(prefix=prefix)})
    assert answer.headers["Location"] == found.format(prefix=prefix)


def test_an_address_without_the_slash_gets_it(server: Server, app: App) -> None:
    with server.client() as client:
        answer = client.get(f"proxy/{app.port}?a=1")
    assert answer.status_code == 302
    assert answer.headers["Location"] == f"{BASE}proxy/{app.port}/?a=1"


# -- when nothing is there -------------------------------------------------------------


def test_a_port_without_an_app_is_named(server: Server) -> None:
    port = free_port()
    with server.client() as client:
        page = client.get(f"proxy/{port}/<b>", headers={"Accept": "text/html"})
        assert page.status_code == 503
        assert page.headers["Retry-After"]
        assert f"Nothing listens on port {port}" in page.text
        assert "Try again" in page.text
        assert f"labkit/api/port/{port}" in page.text
        assert "<b>" not in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        line = client.post(f"proxy/{port}/x", content=b"body")
        assert line.status_code == 503
        assert line.json()["message"] == f"Nothing listens on port {port}."
        assert client.get(f"labkit/api/port/{port}").json() == {"listening": False}


def test_an_app_that_hangs_up_is_a_bad_gateway(server: Server) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as one:
                    one.recv(1000)

    threading.Thread(target=hang_up, daemon=True).start()
    port = listener.getsockname()[1]
    with server.client() as client:
        answer = client.post(f"proxy/{port}/x", content=b"a")
        assert answer.status_code == 502
        assert f"port {port} closed the connection" in answer.json()["message"]
        assert client.get(f"labkit/api/port/{port}").json() == {"listening": True}
    listener.close()


def test_an_app_that_speaks_no_http_is_a_bad_gateway(server: Server) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def speak() -> None:
        with listener.accept()[0] as one:
            one.recv(1000)
            one.sendall(b"SSH-2.0-OpenSSH\r\n")

    threading.Thread(target=speak, daemon=True).start()
    with server.client() as client:
        answer = client.get(f"proxy/{listener.getsockname()[1]}/x")
    assert answer.status_code == 502
    listener.close()


def test_other_hosts_are_refused(server: Server) -> None:
    with server.client() as client:
        assert client.get("proxy/10.0.0.1:80/").status_code == 403
        assert client.post("proxy/10.0.0.1:80/", content=b"x").status_code == 403


def test_the_log_tells_no_token(server: Server, app: App) -> None:
    with server.client() as client:
        client.get(f"proxy/{app.port}/echo?token={TOKEN}")
        client.get(f"proxy/{free_port()}/?token={TOKEN}")
    assert TOKEN not in server.log.read_text()


def test_it_counts_as_activity(server: Server, app: App) -> None:
    before = server.status()["last_activity"]
    time.sleep(0.05)
    assert server.status()["last_activity"] == before  # asking does not count
    with server.client() as client:
        client.get(f"proxy/{app.port}/echo")
    assert server.status()["last_activity"] > before


def test_remote_addresses_of_this_host(server: Server, app: App) -> None:
    with server.client() as client:
        found = client.get(f"proxy/127.0.0.1:{app.port}/echo/x").json()
        assert found["path"] == "/echo/x"
        assert ["X-Forwarded-Context", f"{BASE}proxy/127.0.0.1:{app.port}"] in found["headers"]


def test_absolute_addresses_pass_the_whole_path(server: Server) -> None:
    app = App()

    @app.on("GET", "/{rest:.*}")
    async def echo(request: web.Request) -> web.Response:
        return web.Response(text=request.path, headers={"Set-Cookie": "a=1; Path=/"})

    app.start()
    with server.client() as client:
        answer = client.get(f"proxy/absolute/{app.port}/x/y")
    assert answer.text == f"{BASE}proxy/absolute/{app.port}/x/y"
    assert f"a=1; Path={BASE}proxy/absolute/{app.port}/" in answer.headers.get_list("Set-Cookie")
    app.stop()


def test_environment_proxies_are_not_used(app: App) -> None:
    server = Server(env={"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"})
    try:
        server.start()
        with server.client(trust_env=False) as client:
            assert client.get(f"proxy/{app.port}/echo").status_code == 200
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["proxy/5005/", "proxy/absolute/5005/", "proxy/5005"])
def test_a_refusal_says_when_the_connection_ends(server: Server, path: str) -> None:
    """Else a proxy in front sends the next person's request into a closing connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        for _ in range(3):
            connection.request("GET", f"{BASE}{path}", headers={"Accept": "text/html"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (302, 403)
            # http.client opens anew after "Connection: close", and only then.
    finally:
        connection.close()
