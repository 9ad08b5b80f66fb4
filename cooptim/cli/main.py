"""Entry of the command line: parses, runs, and turns errors into one message and an exit code."""

import importlib
import shlex
import sys
from collections.abc import Sequence

from cooptim.cli.parser import build_parser

USER_ERROR = 2
INTERRUPTED = 130  # as a shell reports a process that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 (out of tolerance, no design), 2 (bad input) or 130 (interrupted)."""
    given = list(sys.argv[1:] if argv is None else argv)
    options = build_parser().parse_args(given)
    try:
        from cooptim.cli.quiet import set_up

        set_up()
        commands = importlib.import_module(f"cooptim.cli.{options.command}")
        return int(commands.run(options))
    except (ValueError, FloatingPointError) as error:
        _say(f"cooptim {options.command}: {error}")
        return USER_ERROR
    except KeyboardInterrupt:
        again = " ".join(["cooptim", *map(shlex.quote, given), *(() if "--resume" in given else ("--resume",))])
        tail = f"; resume with --resume: {again}" if options.command in ("optimize", "pareto") else ""
        _say(f"cooptim {options.command}: interrupted{tail}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        return 0


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
