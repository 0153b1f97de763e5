from django.apps import AppConfig


class InstancesConfig(AppConfig):
    name = "instances"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Django loads apps before models; startup needs the models.
        from instances import startup

        startup.begin()
