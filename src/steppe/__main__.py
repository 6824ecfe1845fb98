"""``python -m steppe``."""

import sys

if not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # the current folder: a file json.py there is no part of Steppe

from steppe.cli import main

main()
