from collections.abc import Callable
from typing import Any

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import SimpleRouter

from instances.api import description  # noqa: F401 - importing it registers the extension
from instances.api.activity import ActivityViewSet
from instances.api.costs import AnnotationViewSet, CostViewSet
from instances.api.policies import FindingViewSet, PolicyViewSet
from instances.api.start_freeze import StartFreezeViewSet
from instances.api.utilization import UtilizationViewSet
from instances.api.views import (
    ApiRootView,
    CacheViewSet,
    InstanceViewSet,
    NoSuchApiView,
    OperationViewSet,
    OverviewView,
    ProtectionViewSet,
    SessionView,
)

router = SimpleRouter()
router.trailing_slash = "/?"
router.register("instances", InstanceViewSet, basename="instance")
router.register("operations", OperationViewSet, basename="operation")
router.register("protections", ProtectionViewSet, basename="protection")
# Before the policies, whose ids could be any text.
router.register("policies/findings", FindingViewSet, basename="finding")
router.register("policies", PolicyViewSet, basename="policy")
router.register("costs", CostViewSet, basename="cost")
router.register("cache", CacheViewSet, basename="cache")


def drop_optional_slash(endpoints: list[tuple[str, str, str, Callable[..., Any]]], **kwargs: Any) -> list[Any]:
    """Describe each address without its optional trailing slash (a hook of drf-spectacular)."""
    return [(path.rstrip("/"), *rest) for path, *rest in endpoints]


urlpatterns = [
    re_path(r"^/?$", ApiRootView.as_view(), name="api-root"),
    path("/", include(router.urls)),
    re_path(r"^/instances\.csv$", InstanceViewSet.as_view({"get": "download"}), name="instance-download"),
    re_path(
        r"^/instances/(?P<pk>[^/]+)/annotation/?$",
        AnnotationViewSet.as_view({"get": "show", "put": "set"}),
        name="instance-annotation",
    ),
    re_path(
        r"^/instances/(?P<pk>[^/]+)/utilization/?$",
        UtilizationViewSet.as_view({"get": "show"}),
        name="instance-utilization",
    ),
    re_path(r"^/annotations/?$", AnnotationViewSet.as_view({"put": "set_many"}), name="annotations"),
    re_path(
        r"^/costs/(?P<report>history|instances|bill)\.csv$",
        CostViewSet.as_view({"get": "download"}),
        name="cost-download",
    ),
    re_path(
        r"^/start-freeze/?$",
        StartFreezeViewSet.as_view({"get": "show", "put": "freeze", "delete": "unfreeze"}),
        name="start-freeze",
    ),
    re_path(r"^/activity/?$", ActivityViewSet.as_view({"get": "list"}), name="activity-list"),
    re_path(r"^/activity\.csv$", ActivityViewSet.as_view({"get": "download"}), name="activity-download"),
    re_path(r"^/overview/?$", OverviewView.as_view(), name="overview"),
    re_path(r"^/session/?$", SessionView.as_view(), name="session"),
    re_path(r"^/schema/?$", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"^/docs/?$", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    re_path(r"^/", NoSuchApiView.as_view()),
]
