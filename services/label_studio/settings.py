"""Label Studio's settings in the portal: Django reads this module."""

import os
from urllib.parse import urlsplit

# First: Label Studio's error reporting reads Django's settings while they load.
from core.settings.base import *  # noqa: F403
from label_studio.core.settings.label_studio import *  # noqa: F403
from label_studio.core.settings.label_studio import MIDDLEWARE as _THEIRS

GATE_SECRET = os.environ["LABHUB_APP_SECRET"]
LAB_NAME = os.environ.get("LABHUB_LAB_NAME", "Lab")
_URL = urlsplit(os.environ["LABHUB_APP_URL"])
PERSON_DOMAIN = _URL.hostname or "localhost"

MIDDLEWARE = [
    "services.label_studio.single_sign_on.GateMiddleware",
    *(
        name
        # Their own tokens would open the door to whoever has one, without the hub.
        for name in _THEIRS
        if name
        not in ("core.middleware.XApiKeySupportMiddleware", "corsheaders.middleware.CorsMiddleware")
    ),
]
_place = MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1
MIDDLEWARE.insert(_place, "services.label_studio.single_sign_on.PersonMiddleware")
AUTHENTICATION_BACKENDS = [
    "rules.permissions.ObjectPermissionBackend",  # theirs: what members of an organization may do
    "services.label_studio.single_sign_on.PersonBackend",
]
LOGOUT_REDIRECT_URL = os.environ.get("LABHUB_HOME_URL", "/")

# The gate says who asks, and says it anew with each request.
INACTIVITY_SESSION_TIMEOUT_ENABLED = False
CORS_ALLOW_ALL_ORIGINS = False
APP_PREFIX = os.environ["LABHUB_APP_PREFIX"]
ROOT_URLCONF = "services.label_studio.urls"
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "label_studio_session", "label_studio_csrf"
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = APP_PREFIX
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _URL.scheme == "https"
CSRF_TRUSTED_ORIGINS = [f"{_URL.scheme}://{_URL.netloc}"]
ALLOWED_HOSTS = [PERSON_DOMAIN]
