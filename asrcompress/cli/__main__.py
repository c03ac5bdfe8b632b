import sys

from asrcompress.cli import main

sys.exit(main())
