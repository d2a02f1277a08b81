"""A member's Dash app, written as one would at home; routes at its end serve the contract."""

import hashlib
import os

import pandas as pd
from dash import Dash, Input, Output, dcc, html
from flask import Response, jsonify, request

table = pd.read_csv("doses.csv")
app = Dash(__name__, title="Doses")
app.layout = html.Main(
    [
        html.H1("Dose response"),
        html.P(id="who"),
        dcc.Dropdown(sorted(table["compound"].unique()), "A", id="compound"),
        dcc.Graph(id="curve"),
    ],
    style={"fontFamily": "sans-serif", "maxWidth": "50rem", "margin": "auto"},
)


@app.callback(Output("curve", "figure"), Output("who", "children"), Input("compound", "value"))
def curve(compound):
    chosen = table[table["compound"] == compound]
    curve = {"x": chosen["dose_um"].tolist(), "y": chosen["response"].tolist(), "name": compound}
    axes = {"xaxis": {"type": "log", "title": {"text": "dose (µM)"}}, "yaxis": {"range": [0, 1.05]}}
    return {
        "data": [curve],
        "layout": axes,
    }, f"{request.headers['X-Labhub-User']} looks at compound {compound}"


PREFIX = os.environ["LABHUB_APP_PREFIX"]


@app.server.post(f"{PREFIX}upload")
def upload():
    digest, size = hashlib.sha256(), 0
    while piece := request.stream.read(1 << 20):
        digest.update(piece)
        size += len(piece)
    return jsonify(size=size, sha256=digest.hexdigest())


@app.server.get(f"{PREFIX}download")
def download():
    return Response((b"x" * (1 << 20) for _ in range(151)), mimetype="application/octet-stream")


@app.server.get(f"{PREFIX}whoami")
def whoami():
    answer = jsonify(user=request.headers["X-Labhub-User"], headers=dict(request.headers))
    answer.set_cookie("seen", "1")
    return answer


app.run(debug=True)  # as many scripts end: it must not serve a second time
