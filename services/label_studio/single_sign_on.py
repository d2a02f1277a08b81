"""Whoever the gate names is logged in; nobody else, and in no other way.

Built on Django's own authentication by a proxy's header.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import RemoteUserBackend
from django.contrib.auth.middleware import RemoteUserMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from organizations.models import Organization

from services.appkit import secrets

_SECRET = f"HTTP_{secrets.HEADER.upper().replace('-', '_')}"
# What Label Studio would take for a login of its own.
_OTHER_LOGINS = ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY")


class GateMiddleware:
    """Refuse what does not come through the gate; stands before all other middleware."""

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request of the gate."""
        value = request.META.get(_SECRET)
        if value is None or not secrets.shown([value], settings.GATE_SECRET):
            return HttpResponseForbidden("Open Label Studio from the portal's home page.")
        for name in _OTHER_LOGINS:
            request.META.pop(name, None)
        answer: HttpResponse = self._get_response(request)
        return answer


class PersonMiddleware(RemoteUserMiddleware):  # type: ignore[misc]
    """Log in whom the gate names, in place of whoever the session's cookie names."""

    header = "HTTP_X_LABHUB_USER"
    async_capable = False

    def process_request(self, request: HttpRequest) -> None:
        """Log in, and give the rights that the hub says."""
        super().process_request(request)
        user = request.user
        if not user.is_authenticated:
            return
        admin = request.META.get("HTTP_X_LABHUB_ADMIN") == "true"
        if (user.is_staff, user.is_superuser) != (admin, admin):
            user.is_staff = user.is_superuser = admin
            user.save(update_fields=["is_staff", "is_superuser"])


class PersonBackend(RemoteUserBackend):  # type: ignore[misc]
    """The accounts of the people whom the gate names; made when they first come."""

    def clean_username(self, username: str) -> str:
        """Return the e-mail address that Label Studio knows a person by."""
        return f"{username}@{settings.PERSON_DOMAIN}".lower()

    def configure_user(self, request: HttpRequest, user: Any, created: bool = True) -> Any:
        """Bring a person into the one organization: everybody in it sees its projects."""
        if created:
            user.username = request.META[PersonMiddleware.header]
            user.set_unusable_password()
            user.save()
        lab = Organization.objects.order_by("pk").first()
        if lab is None:
            lab = Organization.create_organization(created_by=user, title=settings.LAB_NAME[:1000])
        elif not lab.has_user(user):
            lab.add_user(user)
        if user.active_organization_id != lab.pk:
            user.active_organization = lab
            user.save(update_fields=["active_organization"])
        return user
