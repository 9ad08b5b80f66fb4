import resource
import subprocess
import sys

import pytest

NAMES = ("optimize", "pareto", "compress", "evaluate", "trace", "machines", "validate", "report")
COMMANDS = [(), *((name,) for name in NAMES)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_takes_less_than_half_a_second_of_cpu_and_does_not_import_jax(command, root):
    program = (
        "import sys\n"
        "from cooptim.cli import main\n"
        "try:\n"
        f"    main([*{command!r}, '--help'])\n"
        "except SystemExit as leave:\n"
        "    loaded = {'jax', 'numpy', 'flax', 'rich', 'yaml'} & set(sys.modules)\n"
        "    sys.exit(leave.code or (7 if loaded else 0))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: cooptim")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_no_command_is_an_error_of_use(root):
    done = subprocess.run([sys.executable, "-m", "cooptim.cli"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and "required: command" in done.stderr
