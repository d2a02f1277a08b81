"""The apps behind the login: what each one's ``service.yaml`` says becomes a running service.

`declaration` (the file), `catalogue` (which ones this portal has), `places` (their sockets,
accounts and secrets), `hubside` (hub services and rights), `handlers` (what the running hub is
asked), `start` (from a declaration to a process in its own box). The gate, which every request
passes, is `services/gate`.
"""
