"""JupyterHub reads this file; all of it comes from the lab file.

What the lab file cannot say goes into ``config.d/*.py`` of the state folder: each is
run last, with ``c``, ``settings`` and ``paths`` at hand.
"""

import os

from traitlets.config import get_config

from hub import targets
from hub.labfile.read import read
from hub.portal import limits
from hub.portal.configure import before_start, configure
from hub.state.paths import Paths

os.umask(0o077)  # the database, with its tokens' hashes, is the portal's alone

c = get_config()
paths = Paths.from_environment()
settings = read(paths.lab_file)
configure(c, settings, paths)
limits.bound_server(on_this_machine=targets.of(settings, paths).on_this_machine)
before_start(settings, paths)

for extra in sorted((paths.state / "config.d").glob("*.py")):
    exec(compile(extra.read_text(), str(extra), "exec"))  # noqa: S102 - the administrator's own
