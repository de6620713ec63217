"""Drivers: how environments come to be on the infrastructure there is."""

from services.provisioning.drivers.port import Login, NoEnvironmentError, PoolDriver
from services.provisioning.drivers.postgres_pool import PostgresPool, install

__all__ = ["Login", "NoEnvironmentError", "PoolDriver", "PostgresPool", "install"]
