"""Environments in one Postgres server: places in a pool, bridges, and silos."""

from services.provisioning.drivers.postgres.driver import PostgresDriver
from services.provisioning.drivers.postgres.exporting import ExpiredLoginError
from services.provisioning.drivers.postgres.installing import install

__all__ = ["ExpiredLoginError", "PostgresDriver", "install"]
