"""All SQL on the provisioning service's own database; each function is one statement with one intent.

The SQL on databases in which tenants live belongs to their drivers.
"""
