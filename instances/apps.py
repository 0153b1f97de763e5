from django.apps import AppConfig
from django.db.backends.signals import connection_created


class InstancesConfig(AppConfig):
    name = "instances"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Django loads apps before models; startup needs the models.
        from instances import outages, startup

        connection_created.connect(outages.watch_connection)
        startup.begin()
