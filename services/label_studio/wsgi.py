"""Label Studio for gunicorn."""

from django.core.wsgi import get_wsgi_application

from services.label_studio import database

database.find_label_studio()
application = get_wsgi_application()
