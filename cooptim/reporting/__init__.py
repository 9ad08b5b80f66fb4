"""What a person reads: tables, pictures, live progress."""

from cooptim.reporting.progress import Progress
from cooptim.reporting.run import report
from cooptim.reporting.table import cost_table, layer_table, network_table, notes, summary_table

__all__ = ["Progress", "cost_table", "layer_table", "network_table", "notes", "report", "summary_table"]
