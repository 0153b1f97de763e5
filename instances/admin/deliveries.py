"""The common part of webhook deliveries and notifications: their attempts, and the button that sends one again."""

from typing import Any, ClassVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from instances.access import audit
from instances.access.roles import find_role
from instances.admin.columns import MAX_SHOWN, say_more
from instances.admin.records import RecordAdmin, check_press
from instances.errors import InvalidState
from instances.models import Action
from instances.notifications.attempts import Queue
from novita_site.roles import Role


class DeliveryAdmin(RecordAdmin):
    change_form_template = "admin/instances/delivery/change_form.html"
    queue: ClassVar[Queue[Any]]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.send_again))
        name = f"instances_{self.opts.model_name}_send_again"
        return [path("<int:pk>/send-again/", view, name=name), *super().get_urls()]

    def get_page_context(self, request: HttpRequest, record: Any) -> dict[str, Any]:
        return {
            "attempts": record.attempts.all()[:MAX_SHOWN],
            "more": say_more(record.attempts.count()),
            "can_send_again": record.state == self.model.State.DEAD and _may_send(request),
        }

    def send_again(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        if not _may_send(request):
            raise PermissionDenied
        check_press(request)
        record = get_object_or_404(self.model, pk=pk)
        refusal = f"This {self.opts.verbose_name} has not been given up, so it was not sent again."
        names = {"target": record.message_id, "target_name": record.receiver}
        with audit.recorded(audit.get_actor(request), Action.RESEND_WEBHOOK, **names) as entry:
            is_due = self.queue.send_again(record)
            if not is_due:
                entry.outcome, entry.error = InvalidState.code, refusal
        if is_due:
            messages.success(request, "The worker sends it again within seconds.")
        else:
            messages.error(request, refusal)
        return redirect(f"admin:instances_{self.opts.model_name}_change", pk)


def _may_send(request: HttpRequest) -> bool:
    """Return whether the user may send again. Viewers may only read."""
    return find_role(request) >= Role.ADMIN
