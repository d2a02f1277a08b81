"""Members' own Shiny and Dash apps: who may publish, and what becomes of it.

`publish` (the rules), `package` (what arrives), `handlers` (what the running hub is asked), `local`
(the command line). What is kept of them is `hub.apps.member_records`; `hub.apps.member_service`
makes a record an app of the portal, for the catalogue of all apps. The member's code runs in the
app's sandbox alone, see `services.member_apps`.
"""
