"""What can go wrong between a client and AWS: a server in between that breaks things when told."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
    "<Message>a fault of the test's</Message><RequestId>1</RequestId></Error>"
)


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes
    ----------
    method : str
        HTTP method of the requests that it happens to.
    part : str
        What their path contains.
    kind : str
        ``"refuse"`` (answer ``status`` with ``code``), ``"lose"`` (do it, and close the connection
        without an answer) or ``"cut"`` (half of the body, then close).
    times : int
        To how many of them.
    """

    method: str
    part: str
    kind: str = "refuse"
    status: int = 500
    code: str = "InternalError"
    times: int = 1


class FaultyEndpoint:
    """Hands requests on to a server, and answers; `faults` says which go wrong."""

    def __init__(self, url: str) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, urlsplit(url).netloc))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[FaultyEndpoint]:
        """Serve."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def fault_of(self, method: str, path: str) -> Fault | None:
        """Return what goes wrong with a request."""
        with self._lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault
        return None


def _handler(endpoint: FaultyEndpoint, backend: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Be silent."""

        def handle_any(self) -> None:
            fault = endpoint.fault_of(self.command, self.path)
            body = self._body()
            if fault is not None and fault.kind == "refuse":
                self._answer(fault.status, {}, ERROR.format(code=fault.code).encode())
                return
            connection = http.client.HTTPConnection(backend, timeout=120)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
            headers["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fault is not None and fault.kind == "lose":
                self.close_connection = True
                return
            kept = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "content-length")
            }
            size = int(answer.getheader("Content-Length") or len(content))
            if fault is not None:
                content, self.close_connection = content[: len(content) // 2], True
            self._answer(answer.status, kept, content, size)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def _body(self) -> bytes:
            if "100-continue" in self.headers.get("Expect", ""):
                self.send_response_only(100)
                self.end_headers()
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, size: int | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) if size is None else size))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler
