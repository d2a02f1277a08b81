"""Configuration of jupyterhub-idle-culler: see `hub.activity.culler_command`."""

from traitlets.config import get_config

from hub.activity import report_interval
from hub.labfile import read
from hub.paths import Paths
from hub.patience import Patience

c = get_config()
settings = read(Paths.from_environment().lab_file)
c.IdleCuller.cull_arbiter_hook = Patience(
    grace=1.5 * report_interval(settings).total_seconds(),
    every=settings.culling.check_every.total_seconds(),
)
