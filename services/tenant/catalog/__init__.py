"""How the catalog is changed: by one editor at a time, who tells the audit trail and everybody else of it.

Entries are retired, never deleted: tenants keep pointing at them. What is retired cannot be changed until it is
reinstated. No tenant that is there already notices any of this; see `tenant.tier_meaning` in the schema.
"""
