"""`python -m cooptim` is the command `cooptim`."""

import sys

from cooptim.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
