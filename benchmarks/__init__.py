"""Measurements: `make bench`. Never part of the tests, since a machine may be slow."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
django.setup()
