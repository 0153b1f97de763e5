"""Which address goes where."""

from django.contrib import admin
from django.urls import include, path, re_path

from instances import errors
from instances.api.views import HealthView, livez, readyz
from instances.views import dashboard

urlpatterns = [
    path("", dashboard, name="dashboard"),
    path("api", include("instances.api.urls")),
    path("admin/", admin.site.urls),
    re_path(r"^health/?$", HealthView.as_view(), name="health"),
    re_path(r"^livez/?$", livez),
    re_path(r"^readyz/?$", readyz),
]

handler400 = errors.bad_request
handler404 = errors.page_not_found
handler500 = errors.server_error
