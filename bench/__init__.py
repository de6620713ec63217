"""How fast Tenure is, always beside the bare floor of the same messages and commits."""
