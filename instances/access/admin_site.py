"""The frame of the admin pages: every role may enter, and each page checks the role that it requires. Login pages."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from django.contrib.admin import AdminSite
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator

from instances.access import audit
from instances.access.limits import Login
from instances.access.roles import find_role
from instances.answers import lock_out
from instances.errors import TooManyRequests
from instances.models import Action
from novita_site.roles import Role

# The records by what they are for, in the order of the page. The other ones come last, by name.
RECORD_GROUPS: Final = {
    "Access": ("User", "Token"),
    "Rules": ("Policy", "Snooze", "Channel", "Protection", "StartFreeze", "Annotation", "LabelRule"),
    "History": ("AuditEntry", "Operation", "Target", "SyncRun", "Finding", "Event", "Message"),
}

View = TypeVar("View", bound=Callable[..., Any])


@method_decorator(login_not_required, name="dispatch")
class PanelLoginView(LoginView):
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Count an attempt before any lookup or hash. Refuse it after too many failures."""
        if request.method == "POST":
            name = request.POST.get("username", "")
            self.attempt = Login(request.META.get("REMOTE_ADDR", ""), name)
            if wait_seconds := self.attempt.begin():
                user_login_failed.send(
                    sender=__name__, credentials={"username": name}, request=request, code=TooManyRequests.code
                )
                return lock_out(request, wait_seconds)
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        self.attempt.succeed()
        return super().form_valid(form)

    def get_redirect_url(self) -> str:  # type: ignore[override]  # the stubs know a later Django
        """Return the page after the login. A login page doesn't count: it would redirect to itself."""
        url = super().get_redirect_url()
        return "" if urlsplit(url).path in {reverse("login"), reverse("admin:login")} else url


class PanelAdminSite(AdminSite):
    site_header = site_title = "Novita panel"
    index_title = "Records"

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return the records by group, instead of by the application that has their code."""
        found = super().get_app_list(request, app_label)
        if app_label is not None:
            return found
        records = {record["object_name"]: record for app in found for record in app["models"]}
        groups = {
            title: [records.pop(name) for name in names if name in records] for title, names in RECORD_GROUPS.items()
        }
        groups["History"] += sorted(records.values(), key=lambda record: record["name"])
        return [
            {"name": title, "app_label": title.lower(), "models": group} for title, group in groups.items() if group
        ]

    def has_permission(self, request: HttpRequest) -> bool:
        return find_role(request) >= Role.VIEWER

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        """Guard a page. A user without a role gets a refusal and no login page, since another login would not help."""
        guarded = super().admin_view(view, cacheable)

        @wraps(guarded)
        def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if request.user.is_authenticated and not self.has_permission(request):
                raise PermissionDenied
            return guarded(request, *args, **kwargs)

        return cast(View, inner)

    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied
        answer = PanelLoginView.as_view(next_page="admin:index", extra_context=self.each_context(request))(request)
        return cast(HttpResponse, answer)

    def password_change(  # type: ignore[override]  # a refusal is not a TemplateResponse
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        """Change your own password. Attempts are limited, so a stolen session can't guess the old password."""
        attempt = Login(request.META.get("REMOTE_ADDR", ""), request.user.get_username())
        if request.method == "POST" and (wait_seconds := attempt.begin()):
            return lock_out(request, wait_seconds)
        answer = super().password_change(request, extra_context)
        form = (getattr(answer, "context_data", None) or {}).get("form")
        if request.method == "POST" and (form is None or "old_password" not in form.errors):
            attempt.succeed()
        if answer.status_code == HTTPStatus.FOUND:
            name = request.user.get_username()
            audit.save([audit.make_entry(audit.get_actor(request), Action.CHANGE_PASSWORD, name)])
        return answer
