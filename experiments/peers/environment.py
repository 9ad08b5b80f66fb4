"""Makes the environment that HGQ2 runs in: `requirements.txt` beside this file, apart from the package's own.

    python experiments/peers/environment.py --at runs/peers/environment
Python 3.11 to 3.13 (jax 0.10.1); packages come from wherever pip is set up to look.
"""

import argparse
import pathlib
import subprocess
import venv

HERE = pathlib.Path(__file__).parent


def main() -> None:
    """Creates the environment, installs, and prints what was installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=pathlib.Path, default=pathlib.Path("runs/peers/environment"))
    args = parser.parse_args()
    venv.create(args.at, with_pip=True)
    python = str(args.at / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-r", str(HERE / "requirements.txt")], check=True)
    subprocess.run([*pip, "freeze"], check=True)


if __name__ == "__main__":
    main()
