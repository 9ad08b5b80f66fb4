"""The command line: `cooptim optimize | evaluate | trace | machines | validate | report`."""

from cooptim.cli.main import main

__all__ = ["main"]
