"""The settings with a cheap password hash: a login takes most of a second of the processor otherwise, as it should."""

from novita_site.settings import *  # noqa: F403 - all of them

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
