"""The apps behind the login: what each one's ``service.yaml`` says becomes a running service.

`declaration` (the file), `catalogue` (which ones this portal has), `app_paths` (their sockets,
accounts and secrets), `jupyterhub_services` (hub services and their groups), `handlers` (what the
running hub is asked), `launch` (from a declaration to a process in its own sandbox), `members`
(people's own apps). The gate, which every request passes, is `services/gate`.
"""
