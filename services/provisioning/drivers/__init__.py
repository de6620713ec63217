"""Drivers: how environments come to be on the infrastructure there is."""

from services.provisioning.drivers.port import Login, NoEnvironmentError, Partition, PoolDriver, ThrottledError
from services.provisioning.drivers.postgres_pool import PostgresPool, install

__all__ = ["Login", "NoEnvironmentError", "Partition", "PoolDriver", "PostgresPool", "ThrottledError", "install"]
