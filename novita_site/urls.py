"""Which address goes where."""

from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import URLPattern, include, path, re_path

from instances import answers
from instances.access import sso
from instances.access.admin_site import PanelLoginView
from instances.api import metrics
from instances.api.probes import probe
from instances.api.views import HealthView
from instances.pages import activity, costs, snooze, utilization
from instances.pages.dashboard import dashboard

LOGIN_CONTEXT = {"site_header": admin.site.site_header, "sso_name": urlsplit(settings.OIDC_ISSUER).hostname}

sso_urls: list[URLPattern] = []
if settings.HAS_SSO:
    sso_urls = [path("sso/", sso.begin, name="sso"), path("sso/callback/", sso.finish, name="sso_callback")]

urlpatterns = [
    *sso_urls,
    path("", dashboard, name="dashboard"),
    path("activity/", activity.activity, name="activity"),
    path("costs/", costs.costs, name="costs"),
    path("costs/charts/", costs.cost_charts, name="cost_charts"),
    path("costs/bill/", costs.cost_bill, name="cost_bill"),
    path("costs/trend/", costs.cost_trend, name="cost_trend"),
    path("utilization/<str:instance_id>/", utilization.utilization, name="utilization"),
    path("snooze/<str:signed>/", snooze.snooze, name="snooze"),
    path("login/", PanelLoginView.as_view(extra_context=LOGIN_CONTEXT), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("api", include("instances.api.urls")),
    path("admin/", admin.site.urls),
    re_path(r"^health/?$", HealthView.as_view(), name="health"),
    re_path(r"^livez/?$", probe, name="livez"),
    re_path(r"^readyz/?$", probe, name="readyz"),
    re_path(r"^metrics/?$", metrics.show, name="metrics"),
]

handler400 = answers.bad_request
handler403 = answers.permission_denied
handler404 = answers.page_not_found
handler500 = answers.server_error
