"""A process that has imported the project, for forks that would import it with the same result.

The import takes 0.2 s of the 0.3 s that a service or a command needs to start, and 0.05 s more until the first page.
It depends on the settings that are read meanwhile. Django's settings note each of them, so a fork knows whether its own
values are the same; if not, it refuses. All other settings are read later. A fork reads them from its own environment,
as a new Python does.
"""

import contextlib
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.conf import Settings, settings
from django.core.cache import caches
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.template.loader import get_template

import instances
import novita_site
from tests import python

# What each fork imports itself: the entry points, by which a process knows what it is; the settings; and the tasks,
# for which Celery would make an app of its own.
OWN = ("novita_site.wsgi", "novita_site.gunicorn", "novita_site.celery", "novita_site.settings", "instances.tasks")
# Imported when they are used. Not `gunicorn.arbiter`, by which the refresher knows gunicorn's master.
LIBRARIES = (
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.contrib.django.task",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.loops",
    "celery.worker.pidbox",
    "django.contrib.admin.templatetags.admin_list",
    "django.contrib.admin.templatetags.admin_modify",
    "django.contrib.admin.templatetags.log",
    "django.contrib.auth.context_processors",
    "django.contrib.messages.context_processors",
    "django.contrib.messages.middleware",
    "django.contrib.sessions.serializers",
    "django.core.management.commands.check",
    "django.core.management.commands.makemigrations",
    "django.middleware.common",
    "django_redis.client",
    "django_redis.compressors.identity",
    "django_redis.serializers.json",
    "gunicorn.config",
    "gunicorn.debug",
    "gunicorn.glogging",
    "gunicorn.http.wsgi",
    "gunicorn.pidfile",
    "gunicorn.systemd",
    "gunicorn.workers.gthread",
    "kombu.asynchronous.semaphore",
    "kombu.transport.pyamqp",
)


def prepare() -> Callable[[], bool]:
    """Import the project. Return a function for forks: it tells whether all this fits the fork, and makes it fit."""
    try:
        return import_project()
    except (Exception, SystemExit):
        # Settings that a new process refuses, too, and then says why.
        return lambda: False


def import_project() -> Callable[[], bool]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        begin = load_models()
        for package in (instances, novita_site):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.startswith(OWN):
                    importlib.import_module(module.name)
        for name in LIBRARIES:
            importlib.import_module(name)
        # Imports the migrations.
        MigrationLoader(None)
        importlib.import_module("novita_site.static_files").find_version()
        for path in (python.ROOT / "templates").rglob("*.html"):
            get_template(str(path.relative_to(python.ROOT / "templates")))
    # Of the database, the import asks for its kind.
    read = {name: value for name, value in vars(settings).items() if name not in {"_wrapped", "DATABASES"}}
    read["DATABASES"] = get_kind(settings)

    def fits() -> bool:
        own = read_settings()
        if own is None or any(
            read[name] != (get_kind(own) if name == "DATABASES" else getattr(own, name, None)) for name in read
        ):
            return False
        settings._wrapped = own
        for handler in (connections, caches):
            vars(handler).pop("settings", None)
            handler.__init__()  # type: ignore[misc]  # as at the import of Django
        vars(apps)["populate"] = begin
        return True

    return fits


def get_kind(some: Any) -> str:
    return str(some.DATABASES["default"].get("ENGINE"))


def load_models() -> Callable[[Any], None]:
    """Load the models. Return what stands in for that in a fork: it does the rest of the start."""
    from instances.apps import InstancesConfig

    def begin(installed_apps: Any) -> None:
        del vars(apps)["populate"]
        apps.get_app_config("instances").ready()

    ready = InstancesConfig.ready
    try:
        InstancesConfig.ready = lambda self: None  # type: ignore[method-assign]  # for a moment
        apps.populate(settings.INSTALLED_APPS)
    finally:
        InstancesConfig.ready = ready  # type: ignore[method-assign]  # as it was
    return begin


def read_settings() -> Settings | None:
    """Read the environment's settings. Return None if they print anything or fail: that is for a new process."""
    for name in list(sys.modules):
        if name == "novita_site.settings" or (name.startswith("tests.") and name.endswith("settings")):
            del sys.modules[name]
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        try:
            own = Settings(os.environ["DJANGO_SETTINGS_MODULE"])
        except (Exception, SystemExit):
            return None
    return None if written.getvalue() else own
