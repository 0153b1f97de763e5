"""The API as pages: what a form holds before anybody has typed."""

import json
from typing import Any

from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.request import Request


class SafeFormsRenderer(BrowsableAPIRenderer):
    """Fills the form of a view in with its `first_bodies`: one press on it must not stop everything."""

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        form = super().get_raw_data_form(data, view, method, request)
        if form:
            body = getattr(view, "first_bodies", {}).get(getattr(view, "action_map", {}).get(method.lower()))
            form.fields["_content"].initial = json.dumps(body, indent=4) if body else ""
        return form
