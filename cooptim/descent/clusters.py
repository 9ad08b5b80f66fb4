"""Where the tables of shared weights start: at the clusters of the weights they stand for."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from cooptim.design.knobs import Knobs
from cooptim.design.space import DesignSpace
from cooptim.network.trace import Network
from cooptim.relax.codebook import table_of
from cooptim.relax.method import method_of


def label_bits(space: DesignSpace) -> Int[np.ndarray, "layer"]:
    """Width of a label of each layer's weights [bit]; 0 where they are no labels."""
    return np.asarray([method_of(space.methods, i).label_bits or 0 for i in range(len(space.workload.layers))])


def with_clusters(net: Network, space: DesignSpace, params: Any, knobs: Knobs) -> Knobs:
    """The knobs with tables clustered on the weights where these are stored as they are used."""
    if knobs.codebook is None:
        return knobs
    leaves, tables, widths = jax.tree.leaves(params), list(knobs.codebook), label_bits(space)
    traced, rows, _ = net.traced(net.params, net.state, *net.example, False)
    for path, site in traced.plan.sites.items():
        for row in rows[path].ravel():
            bits = int(widths[int(row)])
            if bits and site.leaf is not None and site.leaf < len(leaves):
                entries = table_of(np.append(np.asarray(leaves[site.leaf]).reshape(-1), 0.0), bits)
                tables[int(row)] = jnp.asarray(entries, tables[int(row)].dtype)
    return dataclasses.replace(knobs, codebook=tuple(tables))
