"""Metrics: quotas and usage of each tenant."""
