"""An app for the contract: tells what the gate has told it, and does what tests ask of it.

A file ``wait`` in its data folder holds its start up for so many seconds; ``fail`` ends it.
"""

import asyncio
import hashlib
import hmac
import json
import os
import sys
from pathlib import Path

from aiohttp import WSMsgType, web

PREFIX = os.environ["LABHUB_APP_PREFIX"]
SECRET = os.environ["LABHUB_APP_SECRET"]
DATA = Path(os.environ["LABHUB_APP_DATA"])
BLOCK = bytes(range(256)) * 256
PAGE = """<!doctype html><html lang="en"><title>Test app</title>
<h1>Hello <span id="who">{who}</span></h1><p id="out">waiting</p>
<script src="static/app.js"></script></html>"""
SCRIPT = """const ws = new WebSocket(location.href.replace(/^http/, "ws") + "ws");
ws.onopen = () => ws.send("ping");
ws.onmessage = async (event) => {
  const answer = await fetch("upload", {method: "POST", body: "x".repeat(1000)});
  document.getElementById("out").textContent = event.data + " " + (await answer.json()).bytes;
};
"""


@web.middleware
async def only_the_gate(request, handler):
    shown = request.headers.get("X-Labhub-App-Secret", "")
    if not hmac.compare_digest(shown.encode(), SECRET.encode()):
        raise web.HTTPForbidden(text="only the gate may ask")
    return await handler(request)


async def page(request):
    who = request.headers.get("X-Labhub-User", "")
    return web.Response(text=PAGE.format(who=who), content_type="text/html")


async def script(_):
    return web.Response(text=SCRIPT, content_type="text/javascript")


async def told(request):
    pairs = [(name.lower(), value) for name, value in request.headers.items()]
    account = {"uid": os.getuid(), "home": str(Path.home()), "environ": sorted(os.environ)}
    return web.json_response({"headers": pairs, "url": request.raw_path, "account": account})


async def upload(request):
    digest, size = hashlib.sha256(), 0
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        size += len(chunk)
    return web.json_response(
        {
            "bytes": size,
            "sha256": digest.hexdigest(),
            "length": request.headers.get("Content-Length"),
        }
    )


async def refuse(_):
    raise web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2)


async def first_byte(request):
    """Answer as soon as the first byte of the body is there."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    first = await request.content.read(1)
    await answer.write(b"got " + first)
    async for _ in request.content.iter_any():
        pass
    await answer.write_eof()
    return answer


async def download(request):
    size = int(request.query["bytes"])
    answer = web.StreamResponse(headers={"Content-Length": str(size)})
    await answer.prepare(request)
    left = size
    while left > 0:
        piece = BLOCK[: min(left, len(BLOCK))]
        await answer.write(piece)
        left -= len(piece)
    return answer


async def drip(request):
    """An answer that does not end by itself."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"drop\n")
        await asyncio.sleep(0.2)


async def cookie(_):
    answer = web.Response(text="set")
    answer.set_cookie("sid", "1", path="/", domain="localhost")
    answer.headers.add("Set-Cookie", "plain=2")
    answer.headers.add("Set-Cookie", "service-testapp=forged; Path=/")
    answer.headers.add("Set-Cookie", "jupyterhub-session-id=forged; Path=/; Domain=localhost")
    answer.headers["Clear-Site-Data"] = '"cookies"'
    return answer


async def redirect(_):
    raise web.HTTPFound(f"{PREFIX}told")


async def socket(request):
    ws = web.WebSocketResponse(max_msg_size=64 << 20)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT and message.data == "who":
            await ws.send_str(json.dumps(dict(request.headers)))
        elif message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def end(_):
    os._exit(7)


async def hog(_):
    kept = []
    while True:
        kept.append(bytearray(16 << 20))
        await asyncio.sleep(0)


async def run(request):
    """Run an attack from inside the app."""
    out = []
    try:
        exec(await request.text(), {"say": out.append})
    except BaseException as error:
        out.append(f"{type(error).__name__}: {error}")
    return web.json_response(out)


async def main():
    if (DATA / "fail").exists():
        sys.exit("the disk is on fire")
    if (DATA / "wait").exists():
        await asyncio.sleep(float((DATA / "wait").read_text()))
    app = web.Application(middlewares=[only_the_gate], client_max_size=1 << 40)
    routes = {
        "": page,
        "static/app.js": script,
        "told": told,
        "upload": upload,
        "refuse": refuse,
        "first-byte": first_byte,
        "download": download,
        "drip": drip,
        "cookie": cookie,
        "redirect": redirect,
        "ws": socket,
        "end": end,
        "hog": hog,
        "run": run,
    }
    for path, handler in routes.items():
        app.router.add_route("*", PREFIX + path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, os.environ["LABHUB_APP_SOCKET"]).start()
    print("test app listens", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
