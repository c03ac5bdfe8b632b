"""`python -m asrcompress.cli COMMAND`."""

import sys

from asrcompress.cli import main

sys.exit(main())
