"""Integer networks and their reference executor: numpy and nothing else, so that they run where no jax is.

`load_integer` reads what `cooptim export integer` wrote, `outputs` and `predict` run it, `values` shows every integer
on the way. Arrays are integers throughout; only the input is a float, until its first words are made.
"""

from cooptim.integer.execute import outputs, predict, values
from cooptim.integer.file import load_integer
from cooptim.integer.program import IntegerLayer, IntegerNetwork, Node, Output

__all__ = [
    "IntegerLayer",
    "IntegerNetwork",
    "Node",
    "Output",
    "load_integer",
    "outputs",
    "predict",
    "values",
]
