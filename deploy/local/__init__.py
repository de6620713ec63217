"""All of Tenure on one machine, for development, demonstration and tests."""
