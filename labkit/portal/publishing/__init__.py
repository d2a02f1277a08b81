"""Published things, whatever their kind: what their clients and the portal have in common.

``rules`` says what is allowed (the portal asks it again), ``client`` talks to the portal,
``publication`` is what a notebook holds. Datasets and members' apps add what only they have; the
portal's own part is `services.appkit.published`.
"""
