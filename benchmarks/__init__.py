"""Measurements: `make bench`. Never part of the tests, since a machine may be slow."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
# With a variable of Python's, the tests' helpers start each process for real, and not as a fork that has imported all.
os.environ.setdefault("PYTHONNOUSERSITE", "1")
django.setup()
