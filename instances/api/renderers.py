"""How the API's answers are written, and the API as pages: what a form holds before anybody has typed."""

import json
from collections.abc import Mapping
from typing import Any

from rest_framework import renderers
from rest_framework.request import Request


class JSONRenderer(renderers.JSONRenderer):
    """Writes what UTF-8 can't hold as JSON's own escape: half a character pair, which an error may quote."""

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
    """Fills the form of a view in with its `first_bodies`: one press on it must not stop everything."""

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        form = super().get_raw_data_form(data, view, method, request)
        if form:
            body = getattr(view, "first_bodies", {}).get(getattr(view, "action_map", {}).get(method.lower()))
            form.fields["_content"].initial = json.dumps(body, indent=4) if body else ""
        return form
