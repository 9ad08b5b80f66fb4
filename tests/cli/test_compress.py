"""`cooptim compress`: a file that is read back, its table, and one line for options that cannot be."""

import pytest

from tests.cli.two_layers import MODEL


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compressible.py").write_text(MODEL)
    return tmp_path


@pytest.mark.float32
def test_a_network_in_one_file(run, here):
    rest = ("--steps", 40, "--sparsity", 0.5, "--label-bits", 2, "--drop", 30, "--out", "net.czf")
    code, out, err = run("compress", "--model", "compressible:make", *rest)
    assert code == 0 and "stage" not in err
    size = (here / "net.czf").stat().st_size
    # 1,184 weights of 4 bytes; half of them in 2 bits or less.
    assert f"4736 bytes as float32, {size} in the file: {4736 / size:.1f} times smaller" in out and size < 600
    for leaf, words in (("a", 1024), ("b", 160)):
        rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
        assert [row[2].strip() for row in rows if row[0].strip() == leaf] == [str(words)]
    assert "test accuracy" in out and "loses more" not in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--drop", -1), "--drop -1.0: write points of accuracy from 0 to 100"),
        (("--label-bits", 12), "codebook of every other layer: 12 label bits; legal are whole numbers from 1 to 8"),
        (("--sparsity", 1.2), "pruning: sparsity 1.2 of all layers is out of range"),
        (("--steps", 0), "--steps 0: at least 1"),
        (("--seed", -3), "--seed -3: write a whole number"),
    ],
)
def test_an_option_that_cannot_be_gives_one_line(run, here, options, said):
    code, _, err = run("compress", "--model", "compressible:make", *options)
    assert code == 2 and err.startswith("cooptim compress: ") and said in err and err.count("\n") == 1
