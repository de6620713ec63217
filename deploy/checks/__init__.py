"""What other people's tools say of the files that deploy Tenure: `python -m deploy.checks`, part of `make check`."""
