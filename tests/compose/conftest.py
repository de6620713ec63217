"""What runs against a Compose stack, and is left out where there is none: `make test-compose` starts one."""

from tests.compose.stack import is_tested

collect_ignore_glob = [] if is_tested() else ["test_*.py"]
