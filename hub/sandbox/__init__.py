"""The local target's walls: one Unix account, network, view and limit per user server.

Each concern has its module: `accounts`, `network` (veth and nftables), `sandbox` (bubblewrap),
`cgroups`, `sandboxes` (all of them for one server), `reap` (what a crash leaves), `checks` (what
this host lacks) and `configure` (from the lab file to the walls). No container engine is
needed, nor systemd; root is.
"""

from hub.sandbox.accounts import Account, AccountError, Accounts
from hub.sandbox.checks import problems
from hub.sandbox.configure import accounts_of, sandboxes_of
from hub.sandbox.reap import reap, remove_all
from hub.sandbox.sandboxes import Sandboxes

__all__ = [
    "Account",
    "AccountError",
    "Accounts",
    "Sandboxes",
    "accounts_of",
    "problems",
    "reap",
    "remove_all",
    "sandboxes_of",
]
