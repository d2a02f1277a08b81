"""Members' own Shiny and Dash apps: who may publish, what is kept, and what becomes of it.

`records` (what is kept), `store` (immutable versions on disk), `declare` (a record becomes an app
of the portal), `publish` (the rules), `handlers` (what the running hub is asked). The member's
code runs in the app's sandbox alone, see `services.member_apps`.
"""
