"""``python -m mmexp``."""

import os
import sys

if sys.path and sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:
    del sys.path[0]  # before anything is imported that a file of the working directory could hide

from mmexp.cli.main import main

sys.exit(main())
