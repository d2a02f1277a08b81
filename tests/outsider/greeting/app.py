"""An app from outside: the login is the portal's, this greets."""

import hmac
import html
import os

from aiohttp import web

PREFIX = os.environ["LABHUB_APP_PREFIX"]
SECRET = os.environ["LABHUB_APP_SECRET"]


@web.middleware
async def only_the_gate(request, handler):
    """Refuse whoever does not come through the portal's login."""
    shown = request.headers.get("X-Labhub-App-Secret", "")
    if not hmac.compare_digest(shown.encode(), SECRET.encode()):
        raise web.HTTPForbidden(text="Please open this app from the portal.")
    return await handler(request)


async def page(request):
    """Greet."""
    name = html.escape(request.headers["X-Labhub-User"])
    return web.Response(text=f"<h1>Hello {name}</h1>", content_type="text/html")


app = web.Application(middlewares=[only_the_gate])
app.router.add_get(PREFIX, page)

if __name__ == "__main__":
    web.run_app(app, path=os.environ["LABHUB_APP_SOCKET"], print=None)
