from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.backends.signals import connection_created


class InstancesConfig(AppConfig):
    name = "instances"
    # The records' pages show it: "Home › Records › Operations".
    verbose_name = "Records"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Django loads apps before models; startup needs the models.
        from instances import outages, refresher
        from instances.access import logins  # noqa: F401 - receives Django's signals
        from novita_site import private_files

        private_files.log_problems()
        register(private_files.check, Tags.security)
        connection_created.connect(outages.watch_connection)
        refresher.begin()
