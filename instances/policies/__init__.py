"""Policies that warn of instances which cost money for nothing, and stop them when that is switched on."""
