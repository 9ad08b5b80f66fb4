import io

from rich.console import Console

from cooptim.reporting import Progress


def _run(console, broken=False):
    with Progress(console) as progress:
        progress.stage("float", 20)
        progress.step(10, loss=0.5, energy_pj=5300.0)
        progress.step(20, loss=0.25, energy_pj=5100.0, val_accuracy=0.973)
        progress.stage("joint0", 40)
        if broken:
            raise KeyboardInterrupt
        progress.done()


def test_without_a_terminal_a_stage_is_one_line():
    file = io.StringIO()
    _run(Console(file=file, force_terminal=False, width=80))
    lines = file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("float: 20 steps, ")
    assert lines[0].endswith("loss 0.25, energy 5.1 nJ, val accuracy 97.3 %")
    assert lines[1] == "joint0: from its checkpoint"


def test_on_a_terminal_bars_show_stage_count_time_left_and_metrics():
    file = io.StringIO()
    _run(Console(file=file, force_terminal=True, width=120))
    text = file.getvalue()
    assert "float" in text and "20/20" in text and "left" in text and "loss 0.25, energy 5.1 nJ" in text


def test_an_interrupt_gives_the_cursor_back():
    file = io.StringIO()
    try:
        _run(Console(file=file, force_terminal=True, width=120), broken=True)
    except KeyboardInterrupt:
        pass
    assert file.getvalue().rstrip().endswith("\x1b[?25h")
