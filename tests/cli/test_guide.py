"""docs/adding_a_machine.md: its commands and its Python run as they stand there."""

import re
import shlex
import subprocess
import sys

import pytest

from cooptim.validate import conformance


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def guide(root):
    return (root / "docs" / "adding_a_machine.md").read_text(encoding="utf-8")


@pytest.fixture
def mine(guide, root, tmp_path, monkeypatch):
    """A folder with the copy that the guide's shell lines make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    lines = blocks(guide, "console")[0].replace("python -c", f"{shlex.quote(sys.executable)} -c")
    subprocess.run(["bash", "-ec", lines], check=True)
    return tmp_path / "mine.yaml"


def test_the_commands_of_the_guide_run(guide, mine, run, monkeypatch):
    # The laws themselves are tried on every file by the tests of conformance; here: on the user's file.
    tried = []
    law = conformance.Law("a law", True, "found")
    monkeypatch.setattr(conformance, "machine_laws", lambda file: (tried.append(file.name), (law,))[1])
    outputs = {}
    for line in blocks(guide, "console")[1].splitlines():
        program, *argv = shlex.split(line)
        code, out, err = run(*argv)
        assert (program, code, err) == ("cooptim", 0, ""), line
        outputs[" ".join(argv[:2])] = out
    assert list(outputs) == ["machines show", "machines check", "evaluate --machine"]
    assert "My chip" in outputs["machines show"] and tried == ["mine"]
    assert "processor: none of 1 laws broken" in " ".join(outputs["machines check"].split())


def test_the_fault_of_the_guide_is_answered_as_it_says(guide, mine, run):
    text = mine.read_text().replace("datapath: {value: 0.6436,", "datapath: {value: 0.70,")
    mine.write_text(text)
    code, _, err = run("evaluate", "--machine", "mine.yaml", "--input-shape", "8x8x1")
    assert code == 2 and blocks(guide, "text")[0].strip() in err


def test_the_numbers_and_the_python_of_the_guide_hold(guide, mine):
    namespace = {"__name__": "guide"}
    exec(compile(blocks(guide, "python")[0], "adding_a_machine.md", "exec"), namespace)
    assert namespace["row"].published == 18.0 and namespace["row"].holds
    packaged = mine.with_suffix(".yaml.old").read_text()
    for line in blocks(guide, "yaml"):
        field = line.split(",")[0]  # name, value
        assert field in packaged, field
