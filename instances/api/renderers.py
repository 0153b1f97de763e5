"""Renders the API's answers, and its browsable pages with harmless first contents of their forms."""

import json
from collections.abc import Mapping
from typing import Any, Final

from rest_framework import renderers
from rest_framework.request import Request

# View → its title in a browser, and that of one of its things.
TITLES: Final = {
    "ApiRootView": ("API", ""),
    "InstanceViewSet": ("Instances", "Instance"),
    "UtilizationViewSet": ("Utilization", "Utilization"),
    "OperationViewSet": ("Operations", "Operation"),
    "ProtectionViewSet": ("Protections", ""),
    "StartFreezeViewSet": ("Start freeze", ""),
    "PolicyViewSet": ("Policies", "Policy"),
    "FindingViewSet": ("Policy findings", "Policy finding"),
    "CostViewSet": ("Costs", ""),
    "AnnotationViewSet": ("Annotations", "Annotation"),
    "ActivityViewSet": ("Activity", ""),
    "CacheViewSet": ("Cache", ""),
    "OverviewView": ("Overview", ""),
    "SessionView": ("Session", ""),
    "HealthView": ("Health", ""),
    "NoSuchApiView": ("No such address", ""),
    "SpectacularAPIView": ("API description", ""),
    "SpectacularSwaggerSplitView": ("API documentation", ""),
}


def name_view(view: Any) -> str:
    """Return the title of a browsable page: "Instances", "Instance", "Instances: stop all"."""
    # Views of libraries, such as that of the description, have no page of their own.
    many, one = TITLES.get(type(view).__name__, ("API", ""))
    title = one if getattr(view, "detail", False) and one else many
    action: str = getattr(view, "name", None) or ""
    return f"{title}: {action[0].lower()}{action[1:]}" if action else title


class JSONRenderer(renderers.JSONRenderer):
    """Writes unpaired surrogates, which an error may quote and UTF-8 can't encode, as JSON escapes."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        try:
            return super().render(data, accepted_media_type, renderer_context)
        except UnicodeEncodeError:
            return _EscapingRenderer().render(data, accepted_media_type, renderer_context)


class _EscapingRenderer(renderers.JSONRenderer):
    ensure_ascii = True


class SafeFormsRenderer(renderers.BrowsableAPIRenderer):
    """Fills a view's form with its `first_bodies`: sending it unchanged must not stop everything."""

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        form = super().get_raw_data_form(data, view, method, request)
        if form:
            body = getattr(view, "first_bodies", {}).get(getattr(view, "action_map", {}).get(method.lower()))
            form.fields["_content"].initial = json.dumps(body, indent=4) if body else ""
        return form
