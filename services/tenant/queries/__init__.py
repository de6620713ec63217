"""All SQL of the tenant service, tenants apart from the catalog; each function is one statement with one intent."""
