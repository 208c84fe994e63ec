"""``python -m mmexp``."""

import sys

from mmexp.cli.main import main

sys.exit(main())
