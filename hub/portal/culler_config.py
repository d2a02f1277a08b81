"""Configuration of jupyterhub-idle-culler: see `hub.portal.culling.culler_command`."""

from traitlets.config import get_config

from hub.labfile.read import read
from hub.portal.cull_policy import CullPolicy
from hub.portal.culling import report_interval
from hub.state.paths import Paths

c = get_config()
settings = read(Paths.from_environment().lab_file)
c.IdleCuller.cull_arbiter_hook = CullPolicy(
    grace=1.5 * report_interval(settings).total_seconds(),
    every=settings.culling.check_every.total_seconds(),
)
