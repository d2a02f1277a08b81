#!/usr/bin/env python3
"""A user server in thirty lines: answers on its prefix and runs code for attack tests.

It has no login: only tests whose point is not the server's own login use it.
STUB_DELAY seconds pass before it listens; STUB_EXIT makes it fail with that code.
"""

import contextlib
import http.server
import io
import json
import os
import ssl
import sys
import time
import traceback
from urllib.parse import urlsplit


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.answer(200, {"user": os.environ["JUPYTERHUB_USER"], "path": self.path})

    def do_POST(self) -> None:
        code = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        out = io.StringIO()
        ok = True
        with contextlib.redirect_stdout(out):
            try:
                exec(code, {"__name__": "attack"})
            except BaseException:
                ok = False
                traceback.print_exc(file=out)
        self.answer(200, {"ok": ok, "out": out.getvalue()})

    def log_message(self, *args: object) -> None:
        pass


print("stub server starts", file=sys.stderr, flush=True)
time.sleep(float(os.environ.get("STUB_DELAY", "0")))
if os.environ.get("STUB_EXIT"):
    print("stub: the disk is on fire", file=sys.stderr, flush=True)
    sys.exit(int(os.environ["STUB_EXIT"]))
place = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
server = http.server.ThreadingHTTPServer((place.hostname or "", place.port or 0), Handler)
if place.scheme == "https":
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(os.environ["JUPYTERHUB_SSL_CERTFILE"], os.environ["JUPYTERHUB_SSL_KEYFILE"])
    tls.load_verify_locations(os.environ["JUPYTERHUB_SSL_CLIENT_CA"])
    tls.verify_mode = ssl.CERT_REQUIRED
    server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
