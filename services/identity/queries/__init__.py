"""All SQL of the identity service, a file for each thing that rows are about."""
