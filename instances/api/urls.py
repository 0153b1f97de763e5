from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import SimpleRouter

from instances.api.views import ApiRootView, CacheViewSet, InstanceViewSet, NoSuchApiView

router = SimpleRouter()
router.trailing_slash = "/?"
router.register("instances", InstanceViewSet, basename="instance")
router.register("cache", CacheViewSet, basename="cache")

urlpatterns = [
    re_path(r"^/?$", ApiRootView.as_view(), name="api-root"),
    path("/", include(router.urls)),
    re_path(r"^/schema/?$", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"^/docs/?$", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    re_path(r"^/", NoSuchApiView.as_view()),
]
