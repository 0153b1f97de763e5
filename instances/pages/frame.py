"""The frame of every page: what its bar says."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from instances.access.roles import find_role
from novita_site import __version__


def describe(request: HttpRequest) -> dict[str, Any]:
    """Return the context of the bar; a template calls `visitor_role` only where it shows the role."""
    return {
        "is_simulated": settings.IS_SIMULATED,
        "version": __version__,
        "visitor_role": lambda: find_role(request).label,
    }
