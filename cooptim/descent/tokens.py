"""Whether a network knows every token of its data: what it looks up out of range is NaN, and training runs away.

That is so of `nnx.Embed` and `jnp.take`; `table[x]` takes the last row instead, which nothing here can tell.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.data import Dataset
from cooptim.data.arrays import kind
from cooptim.network.trace import Network


def check_tokens(network: Network, data: Dataset, chunk: int) -> None:
    """Raises ValueError where rows of tokens make the untrained network return NaN; nothing is run for other inputs."""
    if kind(data.x_train) != "tokens":
        return

    @jax.jit
    def known(x):  # type: ignore[no-untyped-def]
        """True for the rows whose outputs are all finite."""
        found = network.apply(network.params, network.state, x)[0]
        rows = jnp.moveaxis(found, -2, 0)  # [image, class], behind a stage axis in a network with exits
        return jnp.isfinite(rows).reshape(rows.shape[0], -1).all(axis=1)

    for split in ("train", "val", "test"):
        x = getattr(data, f"x_{split}")
        good = np.concatenate([np.asarray(known(x[start : start + chunk])) for start in range(0, len(x), chunk)])
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                f"data {data.name}, x_{split}: row {row} makes network {network.workload.name} return NaN before any "
                f"training; its tokens are {int(x[row].min())} to {int(x[row].max())}, in rows that it knows "
                f"{_extremes(x[good])}: number tokens from 0 and give its embedding one row a token"
            )


def _extremes(x: np.ndarray) -> str:
    return f"{int(x.min())} to {int(x.max())}" if x.size else "none"
