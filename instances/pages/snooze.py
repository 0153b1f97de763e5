"""The page behind the link of a warning. Opening it changes nothing, since mail scanners open links; its buttons do."""

from http import HTTPStatus

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from instances.access.audit import get_visitor
from instances.errors import LinkNotValid
from instances.policies import finding_list, snoozing

CHOICES = {"1h": "1 hour", "4h": "4 hours", snoozing.TOMORROW: "Until tomorrow, 09:00"}


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def snooze(request: HttpRequest, signed: str) -> HttpResponse:
    """Show the finding and the choices; a POST snoozes once. The link itself is the permission."""
    if request.method == "POST":
        preset = request.POST.get("for", "")
        if preset not in CHOICES or request.POST.keys() - {"for", "csrfmiddlewaretoken"}:
            raise BadRequest("Choose one of the buttons.")
        is_done, words = snoozing.use_link(signed, preset, actor=get_visitor(request, "link in a message"))
        status = HTTPStatus.OK if is_done else HTTPStatus.GONE
        return render(request, "pages/snooze.html", {"is_done": is_done, "words": words}, status=status)
    link = snoozing.find_link(signed)
    if link is None:
        words = f"{LinkNotValid.message} {LinkNotValid.suggestion}"
        return render(request, "pages/snooze.html", {"words": words}, status=HTTPStatus.GONE)
    context = {"finding": link.finding, "message": finding_list.say(link.finding), "choices": CHOICES}
    return render(request, "pages/snooze.html", context)
