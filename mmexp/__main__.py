"""``python -m mmexp``."""

import sys

from mmexp.cli import main

sys.exit(main())
