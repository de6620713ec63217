"""`python -m deploy.compose.key`: show the key of the installation's first administrator."""

import sys
from pathlib import Path

from deploy.compose.volumes import OPERATOR, ROOT
from deploy.local.secrets import ADMIN_KEY_FILE


def main(root: Path = ROOT) -> int:
    """Print the key and nothing else, so that a shell can take it."""
    print((root / OPERATOR / ADMIN_KEY_FILE).read_text(encoding="ascii"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
