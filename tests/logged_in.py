"""Users of a panel that requires a login, and clients that are logged in as one."""

from django.contrib.auth.models import Group, User
from django.test import Client

from instances.models import AuditEntry

PASSWORD = "correct horse battery"


def make_user(name: str, role: str = "") -> User:
    user = User.objects.create_user(name, password=PASSWORD)
    if role:
        user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


def log_in(user: User) -> Client:
    """Return a client that is logged in. The login itself is in no record."""
    client = Client(REMOTE_ADDR="192.0.2.7")
    client.force_login(user)
    AuditEntry.objects.all().delete()
    return client
