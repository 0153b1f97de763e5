"""Which address goes where."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from instances import errors
from instances.api.views import HealthView, livez, readyz

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="api-root")),
    path("api", include("instances.api.urls")),
    path("admin/", admin.site.urls),
    re_path(r"^health/?$", HealthView.as_view(), name="health"),
    re_path(r"^livez/?$", livez),
    re_path(r"^readyz/?$", readyz),
]

handler400 = errors.bad_request
handler404 = errors.page_not_found
handler500 = errors.server_error
