from django.contrib.admin.apps import AdminConfig


class PanelAdminConfig(AdminConfig):
    default_site = "novita_site.admin_site.PanelAdminSite"
