"""`python -m cooptim.cli` is the command `cooptim`."""

import sys

from cooptim.cli.main import main

sys.exit(main())
