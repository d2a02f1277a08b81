#!/usr/bin/env python3
"""A small, honest OpenID provider on loopback, for tests: a process of its own.

Authorization code flow with PKCE (S256), id tokens signed with a key from its JWKS, userinfo.
It checks the client's id and secret, the exact redirect address, the code (once, one minute)
and the code verifier. Its people come from a JSON file; ``break`` in a person's entry makes
it dishonest in one way, to see who notices.

Usage: oidc_provider.py PORT PEOPLE.json   (OIDC_CLIENT_SECRET and OIDC_REDIRECT_URI in the
environment)
"""

from __future__ import annotations

import base64
import hashlib
import html
import http.server
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID = "labhub"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CODES: dict[str, dict[str, Any]] = {}
TOKENS: dict[str, str] = {}


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(place.query).items()}
        if place.path == "/.well-known/openid-configuration":
            self.answer(200, self.server.description())
        elif place.path == "/jwks":
            key = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
            self.answer(200, {"keys": [{**key, "kid": "k1", "use": "sig", "alg": "RS256"}]})
        elif place.path == "/authorize":
            self.authorize(query)
        elif place.path == "/userinfo":
            self.userinfo()
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {key: values[-1] for key, values in parse_qs(body).items()}
        if self.path == "/login":
            self.login(form)
        elif self.path == "/token":
            self.token(form)
        else:
            self.answer(404, {})

    def authorize(self, query: dict[str, str]) -> None:
        wrong = [
            name
            for name, good in (
                ("client_id", query.get("client_id") == CLIENT_ID),
                ("redirect_uri", query.get("redirect_uri") == self.server.redirect_uri),
                ("response_type", query.get("response_type") == "code"),
                ("scope", "openid" in query.get("scope", "").split()),
                ("state", bool(query.get("state"))),
                ("code_challenge_method", query.get("code_challenge_method") == "S256"),
                ("code_challenge", len(query.get("code_challenge", "")) == 43),
            )
            if not good
        ]
        if wrong:
            self.answer(400, {"error": "invalid_request", "error_description": ", ".join(wrong)})
            return
        request = html.escape(json.dumps(query), quote=True)
        page = (
            '<!doctype html><title>Provider</title><form method="post" action="/login">'
            f'<input type="hidden" name="request" value="{request}">'
            '<label>Who are you? <input name="person"></label><button>Sign in</button></form>'
        )
        self.answer(200, page)

    def login(self, form: dict[str, str]) -> None:
        request = json.loads(form["request"])
        code = secrets.token_urlsafe(16)
        CODES[code] = {**request, "person": form["person"], "until": time.time() + 60}
        back = {"code": code, "state": request["state"]}
        self.send_response(302)
        self.send_header("Location", f"{request['redirect_uri']}?{urlencode(back)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def token(self, form: dict[str, str]) -> None:
        client, secret = form.get("client_id"), form.get("client_secret")
        header = self.headers.get("Authorization", "")
        if header.startswith("Basic "):
            client, _, secret = base64.b64decode(header[6:]).decode().partition(":")
        if client != CLIENT_ID or secret != os.environ["OIDC_CLIENT_SECRET"]:
            self.answer(401, {"error": "invalid_client"})
            return
        code = CODES.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).decode().rstrip("=")
        if (
            code is None
            or form.get("grant_type") != "authorization_code"
            or code["until"] < time.time()
            or code["redirect_uri"] != form.get("redirect_uri")
            or code["code_challenge"] != challenge
        ):
            self.answer(400, {"error": "invalid_grant"})
            return
        person = self.server.people()[code["person"]]
        now = int(time.time())
        claims = {
            "iss": self.server.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            **{key: value for key, value in person.items() if key not in ("break", "userinfo")},
            **person.get("break", {}).get("claims", {}),
        }
        key: Any = FOREIGN_KEY if person.get("break", {}).get("key") else KEY
        algorithm = person.get("break", {}).get("algorithm", "RS256")
        if algorithm == "none":
            key = None
        elif algorithm.startswith("HS"):
            key = os.environ["OIDC_CLIENT_SECRET"]
        access = secrets.token_urlsafe(16)
        TOKENS[access] = code["person"]
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        if not person.get("break", {}).get("no_id_token"):
            answer["id_token"] = jwt.encode(claims, key, algorithm, headers={"kid": "k1"})
        self.answer(200, answer)

    def userinfo(self) -> None:
        name = TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if name is None:
            self.answer(401, {"error": "invalid_token"})
            return
        person = self.server.people()[name]
        shown = {key: value for key, value in person.items() if key not in ("break", "userinfo")}
        self.answer(200, {**shown, **person.get("userinfo", {})})

    def answer(self, code: int, body: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        data = text.encode()
        self.send_response(code)
        kind = "text/html" if isinstance(body, str) else "application/json"
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, people: Path) -> None:
        super().__init__(("127.0.0.1", port), Provider)
        self.issuer = f"http://127.0.0.1:{port}"
        self.redirect_uri = os.environ["OIDC_REDIRECT_URI"]
        self._people = people

    def people(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._people.read_text())
        return found

    def description(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": [
                os.environ.get("OIDC_CLIENT_AUTH", "client_secret_post")
            ],
        }


if __name__ == "__main__":
    Server(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
