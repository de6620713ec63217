"""Provisioning: the environments that tenants run in."""
