"""Published things on the portal's side: one model for datasets and members' apps.

A record (whose, for whom, title, description) points to one of its versions, which never change.
``records`` is the model, ``statements`` what a person says of it, ``store`` and ``store_s3`` keep
it, ``publisher`` says who may do what. The rules about names and texts, which notebooks ask too,
are `labkit.portal.publishing`.
"""
