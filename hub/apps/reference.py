"""The reference page of ``service.yaml``, made from the schema so that it is never out of date."""

from __future__ import annotations

from hub.apps.declaration import Service
from hub.labfile.reference import tables

HEAD = """# service.yaml

What makes a folder an app of the lab. It lies beside the app's code, and the folder's name is the app's
name: up to 22 small letters, digits and single hyphens (in `services/`, Python's underscores stand for hyphens). The app's address is `/services/<name>/`, on an
origin of its own: `http://<name>--service.localhost:8000/services/<name>/` on one machine.
[Run a web app behind the login](../how-to/apps.md) shows how; `labhub app add FOLDER` names every mistake.

```yaml
title: Plate maps
description: Which compound is in which well.
groups: [screening]
environment: hub
command: [python, "{folder}/app.py", --socket, "{socket}", --prefix, "{prefix}"]
idle: 20m
memory: 512M
```

## What an app is given

Every request has passed the gate: its person is logged in and may open this app. The gate sets these
headers. Of a client's own the common ones pass (`Accept`, `Content-Type`, `Range`, `X-Requested-With`,
`X-CSRFToken` and the like) and those that `headers` below names; all others are dropped, also every header with an
underscore:

| header | |
|---|---|
| `X-Labhub-User` | the person's name |
| `X-Labhub-Groups` | their groups, separated by commas. A group whose name has a character other than letters, digits and `_ . @ : / + -` or space is percent-encoded |
| `X-Labhub-Admin` | `true` or `false` |
| `X-Labhub-App-Secret` | proves that the gate asks: equal to the variable `LABHUB_APP_SECRET`. Compare in constant time, refuse all else |
| `X-Forwarded-Prefix` | `/services/<name>`, without a slash at the end |
| `X-Forwarded-Proto`, `X-Forwarded-Host`, `Host` | the app's public origin |

No cookie and no token of the hub reaches it. Cookies that the app sets are bound to its own prefix.
The person's browser sends it nothing else than what the app's own pages ask for: a changing request or a
WebSocket from a page of another origin is refused.

Its process runs under an account of its own (on a portal that runs as root), in a sandbox like the people's
servers: own network, own /tmp, no homes, the limits below. These variables are set:

| variable | place | |
|---|---|---|
| `LABHUB_APP_SOCKET` | `{socket}` | the Unix socket to listen on (`listen: socket`) |
| `LABHUB_APP_HOST`, `LABHUB_APP_PORT` | `{host}`, `{port}` | the address to listen on (`listen: port`) |
| `LABHUB_APP_PREFIX` | `{prefix}` | `/services/<name>/` |
| `LABHUB_APP_URL` | `{url}` | its public address, with prefix |
| `LABHUB_APP_FOLDER` | `{folder}` | its own folder, read-only |
| `LABHUB_APP_DATA` | `{data}` | its own folder for data, which stays; also `HOME` |
| `LABHUB_APP_SECRET` | | see above; no program of somebody else's should inherit it |
| `LABHUB_APP_NAME` | | its name |
| `LABHUB_MEMORY_BYTES` | | its `memory`, in bytes |
| `LABHUB_LAB_NAME`, `LABHUB_HOME_URL` | | the lab's name, and the address of the home page, for its pages |
| `LABHUB_ENVS` | | the folder of the environments: `$LABHUB_ENVS/cellxgene/bin/python` |

`PATH` begins with the environment's programs. It can import `labkit` and `services.appkit`,
which does all of this for an aiohttp app: see [Run a web app behind the login](../how-to/apps.md).

## From a notebook

A person's server reaches every app that the person may open at `$LABHUB_SERVICES_URL/services/<name>/`, with the
header `Authorization: token $JUPYTERHUB_API_TOKEN`. The gate takes that token away; the app gets the same
headers as from a browser. A program is never shown the "starting" page: the request waits until the app is
ready, or gets JSON, `{"message": ..., "advice": ...}`, with status 503.
"""  # noqa: E501


def markdown() -> str:
    """Return the page ``docs/reference/service-yaml.md``."""
    text = tables(Service).replace("## Top level", "## Keys", 1)
    return f"{HEAD}{text}"
