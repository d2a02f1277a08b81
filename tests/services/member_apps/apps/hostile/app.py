"""A member's app that runs whatever it is sent: what it can reach, any member's code can."""

import contextlib
import io
import os
import traceback

from dash import Dash, html
from flask import request

app = Dash(__name__)
app.layout = html.P("harmless")


@app.server.post(f"{os.environ['LABHUB_APP_PREFIX']}run")
def run():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(request.get_data(as_text=True), {"__name__": "attack"})
        except BaseException:
            traceback.print_exc(file=out)
    return out.getvalue()
