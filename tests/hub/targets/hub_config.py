"""JupyterHub's configuration with the tiny target known: all else is the portal's own."""

from hub import targets
from hub.state.paths import REPOSITORY

targets.TARGETS["eks"] = "tests.hub.targets.tiny:TinyTarget"
exec((REPOSITORY / "hub" / "jupyterhub_config.py").read_text())
