"""The frame of every page: who may read it, and what its bar says."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from instances.access.roles import find_role
from instances.errors import PanelError
from novita_site import __version__
from novita_site.roles import Role

View = Callable[..., HttpResponse]


def viewers_only(view: View) -> View:
    """Refuse visitors without a role; when the view fails with one of our errors, show a page with its reason."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        if find_role(request) < Role.VIEWER:
            raise PermissionDenied
        try:
            return view(request, *args, **options)
        except PanelError as error:
            return render(request, "503.html", {"error": error}, status=error.status)

    return guarded


def describe(request: HttpRequest) -> dict[str, Any]:
    """Return the context of the bar; a template calls `visitor_role` only where it shows the role."""
    return {
        "is_simulated": settings.IS_SIMULATED,
        "version": __version__,
        "visitor_role": lambda: find_role(request).label,
    }
