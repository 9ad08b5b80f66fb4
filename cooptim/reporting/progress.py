"""Live progress of a run: one bar a stage with the time left, plain lines where there is no terminal."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cooptim.reporting.spell import digits, percent, spell


class Progress:
    """Receives what a run does: `stage` when a stage begins, `step` now and then, `done` at the end.

    Use it as a context manager, so that the terminal is left in order whatever happens.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._live = self._console.is_terminal
        self._bars = Bars(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[seen]}"),
            console=self._console,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._name, self._total, self._done, self._seen = "", 0, 0, ""
        self._began = time.monotonic()

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` steps begins; the one before it has ended."""
        self._close()
        self._name, self._total, self._done, self._seen = name, total, 0, ""
        self._began = time.monotonic()
        if self._live:
            self._bars.start()
            self._task = self._bars.add_task(name, total=max(total, 1), seen="")

    def step(self, done: int, **metrics: float) -> None:
        """`done` steps of the stage are behind us; metrics by name: loss, energy_pj, accuracy and so on."""
        self._done, self._seen = done, _spelled(metrics)
        if self._task is not None:
            self._bars.update(self._task, completed=done, seen=self._seen)

    def done(self) -> None:
        """The run has ended."""
        self._close()
        self._bars.stop()

    def _close(self) -> None:
        """Ends the stage at hand: a full bar on a terminal, a line elsewhere."""
        if not self._name:
            return
        if self._task is not None:
            self._bars.update(self._task, completed=max(self._total, 1))
            self._task = None
        elif not self._live:
            seconds = time.monotonic() - self._began
            what = f"{self._total} steps, {seconds:.1f} s" if self._done else "from its checkpoint"
            tail = f", {self._seen}" if self._seen else ""
            self._console.print(f"{self._name}: {what}{tail}", highlight=False, markup=False, soft_wrap=True)
        self._name = ""


def _spelled(metrics: dict[str, float]) -> str:
    """Metrics by name, each as its unit reads best."""
    parts = []
    for name, value in metrics.items():
        if name.endswith("_pj"):
            parts.append(f"{name.removesuffix('_pj')} {spell(value, 'energy')}")
        elif name.endswith("_ns"):
            parts.append(f"{name.removesuffix('_ns')} {spell(value, 'time')}")
        elif name.endswith("accuracy"):
            parts.append(f"{name.replace('_', ' ')} {percent(value)}")
        else:
            parts.append(f"{name} {digits(value)}")
    return ", ".join(parts)
