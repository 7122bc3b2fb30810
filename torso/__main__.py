"""``python -m torso``."""

from __future__ import annotations

import sys

from torso.cli import main

if __name__ == "__main__":
    sys.exit(main())
