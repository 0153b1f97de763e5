"""The page of costs, and the charts that an open page reads again."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import conditional_page

from instances.pages import cards
from instances.pages.frame import viewers_only


@viewers_only
@conditional_page
def trend(request: HttpRequest) -> HttpResponse:
    """Answer the chart of the dashboard's card."""
    return HttpResponse(cards.draw_trend())


@viewers_only
def costs(request: HttpRequest) -> HttpResponse:
    return render(request, "pages/costs.html", {"page": "costs"})
