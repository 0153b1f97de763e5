"""The page behind the link of a warning. Opening it changes nothing, since mail scanners open links; its buttons do."""

from http import HTTPStatus

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from instances.access.audit import get_visitor
from instances.instance import say_times
from instances.policies import finding_list, snoozing

CHOICES = {"1h": "1 hour", "4h": "4 hours", snoozing.TOMORROW: "Until tomorrow, 09:00"}
# A browser sends the chosen day with each button.
FIELDS = {"for", "until", "csrfmiddlewaretoken"}


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def snooze(request: HttpRequest, signed: str) -> HttpResponse:
    """Show the finding and the choices; a POST snoozes once. The link itself is the permission."""
    if request.method == "POST":
        preset = request.POST.get("for", "")
        if preset not in {*CHOICES, snoozing.DATE} or request.POST.keys() - FIELDS:
            raise BadRequest("Choose one of the buttons.")
        actor = get_visitor(request, "link in a message")
        status, words = snoozing.use_link(signed, preset, request.POST.get("until", ""), actor=actor)
        shown = {"status": status.name, "words": say_times(words)}
        return render(request, "pages/snooze.html", shown, status=status)
    link, words = snoozing.open_link(signed)
    if link is None:
        return render(request, "pages/snooze.html", {"words": words}, status=HTTPStatus.GONE)
    zone = snoozing.find_link_zone(link)
    context = {"finding": link.finding, "message": say_times(finding_list.say(link.finding)), "choices": CHOICES}
    context |= {"zone": zone, "days": [one.date() for one in snoozing.list_mornings(zone)], "date": snoozing.DATE}
    return render(request, "pages/snooze.html", context)
