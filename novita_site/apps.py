from django.contrib.admin.apps import AdminConfig


class PanelAdminConfig(AdminConfig):
    default_site = "instances.access.admin_site.PanelAdminSite"
