"""Deep compression: prune in rounds, share the weights that are left, and hand back what an encoder writes.

Source: Han, Mao, Dally, "Deep Compression: compressing deep neural networks with pruning, trained quantization and
Huffman coding" (ICLR 2016). `cooptim.export.compressed_file` is the third part.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.data import Dataset, check_head
from cooptim.descent.pruning import SETTLE_STEPS, Pruned, prunable, prune_in_rounds, require_sparsity, zero_share
from cooptim.descent.retrain import Lesson, Teacher, Trainer, Weights, built, free_weights
from cooptim.descent.stored import Stored, require_form, require_label_bits, shared_leaf, small_leaf, value
from cooptim.network.trace import Network
from cooptim.relax.codebook import labels as places
from cooptim.relax.codebook import table_of


@dataclasses.dataclass(frozen=True)
class Compression:
    """What a compression may lose, and how long it trains.

    Attributes:
      accuracy_drop: of validation accuracy against the float parent, as a fraction.
      sparsities: of the rounds of pruning, rising; each a share of zeros over all layers, or a mapping of each layer's.
      allocation: how a share is spread over the layers, as in `pruning.magnitude_masks`.
      label_bits: of every layer, or by the name of its weight, with `label_bits['']` for the others; 2^bits entries.
      labels: 'free', each weight chooses its entry again after every step; 'held', as k-means set it (Han et al.).
      small: how biases and the like are kept: 'int8' with a step for each leaf, 'float16' or 'float32'.
      float_steps: of the float parent; 0 takes the network's own weights for it.
      round_steps, cluster_steps: of each round of pruning, of the training of tables.
      rate: Adam's, of the parent and of pruning; cluster_rate: of weights while tables learn.
      table_share: rate of table entries over that of weights.
      distil: share of the loss that follows the parent's outputs while the network is pruned and clustered; 0 for none.
    """

    accuracy_drop: float = 0.005
    sparsities: tuple[float | Mapping[str, float], ...] = (0.5, 0.7, 0.8, 0.87, 0.9, 0.925, 0.945, 0.96)
    allocation: str = "lamp"
    label_bits: int | Mapping[str, int] = 3
    labels: str = "free"
    small: str = "int8"
    float_steps: int = 4500
    round_steps: int = 1000
    cluster_steps: int = 1500
    batch: int = 64
    rate: float = 1.5e-3
    cluster_rate: float = 7e-4
    table_share: float = 0.3
    distil: float = 0.5
    augment: str = "none"

    def __post_init__(self) -> None:
        if not 0.0 <= self.accuracy_drop < 1.0:
            raise ValueError(
                f"compression: accuracy_drop {self.accuracy_drop:g} is no fraction in [0, 1); 0.005 is half a point"
            )
        if self.labels not in ("free", "held"):
            raise ValueError(f"compression: labels '{self.labels}' are not known; use 'free' or 'held'")
        if not self.sparsities:
            raise ValueError("compression: no round of pruning; give one sparsity at least, 0 to prune nothing")
        if not 0.0 <= self.distil <= 1.0:
            raise ValueError(f"compression: distil {self.distil:g} is no share of the loss; legal are 0 to 1")
        require_form(self.small)
        for name, bits in self.bits_by_layer().items():
            require_label_bits(name or "every other layer", bits)

    def bits_by_layer(self) -> dict[str, int]:
        """Label bits by name of the weight; '' for all others."""
        return dict(self.label_bits) if isinstance(self.label_bits, Mapping) else {"": self.label_bits}


def compression_for(images: int) -> Compression:
    """The default compression for a training set of this many images: longer where its steps see too few of them."""
    plan = Compression()
    epoch = math.ceil(images / plan.batch)
    return dataclasses.replace(
        plan,
        float_steps=max(1200, 6 * epoch),
        round_steps=max(400, epoch),
        cluster_steps=max(600, 2 * epoch),
    )


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A compressed network.

    Attributes:
      leaves: what is stored of each leaf of params; `params` is made of it alone.
      rounds: (sparsity, validation accuracy) of each round of pruning that was run.
      met: whether the validation accuracy was kept. Accuracies are fractions; those of `parent` belong to the floats.
    """

    network: Network
    leaves: tuple[Stored, ...]
    state: Any
    sparsity: float
    rounds: tuple[tuple[float, float], ...]
    parent_val_accuracy: float
    parent_test_accuracy: float
    val_accuracy: float
    test_accuracy: float
    met: bool

    @property
    def params(self) -> Any:
        """The weights, each equal to what is stored."""
        return jax.tree.unflatten(
            jax.tree.structure(self.network.params), [jnp.asarray(value(leaf)) for leaf in self.leaves]
        )

    @property
    def float_bytes(self) -> int:
        """Size of all params as float32."""
        return 4 * sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.network.params))


def deep_compression(
    network: Network, data: Dataset, compression: Compression | None = None, *, seed: int = 0, progress: Any = None
) -> Compressed:
    """The network pruned as far as its validation accuracy allows, with shared weights; tested once.

    The float parent is trained, pruned in rounds until it loses too much, and clustered from the last round that does
    not; where clustering loses too much, from the round before it, and so on to the first.

    Args:
      network: from `cooptim.trace`; its parameters are where the float parent starts.
      progress: as in `cooptim.optimize`.

    Raises ValueError when data, layers or sparsities do not match the network.
    """
    plan = compression_for(len(data.x_train)) if compression is None else compression
    trainer = Trainer(network, data, plan.batch, seed, augment=plan.augment)
    shape = jax.eval_shape(lambda p, s, x: network.apply(p, s, x)[0], network.params, network.state, data.sample).shape
    check_head(data, int(shape[-1]))
    bits = _bits(network, plan)
    for sparsity in plan.sparsities:
        require_sparsity(network, sparsity)
    parent, parent_state = trained_parent(trainer, plan, progress)
    parent_val = trainer.accuracy(parent, parent_state, data.x_val, data.y_val)
    least = parent_val - plan.accuracy_drop
    teacher = Teacher(parent, parent_state, plan.distil) if plan.distil > 0 else None
    rounds = prune_in_rounds(
        trainer, parent, parent_state, plan.sparsities, Lesson("prune", plan.round_steps, plan.rate, order=1),
        allocation=plan.allocation, teacher=teacher, least_accuracy=least, progress=progress,
    )  # fmt: skip
    kept = [one for one in rounds if one.val_accuracy >= least] or rounds[:1]
    for one in reversed(kept):
        leaves, state = _clustered(trainer, plan, one, bits, teacher, progress)
        params = _values(network, leaves)
        accuracy = trainer.accuracy(params, state, data.x_val, data.y_val)
        if accuracy >= least:
            break
    if progress is not None:
        progress.done()
    return Compressed(
        network=network,
        leaves=leaves,
        state=state,
        sparsity=zero_share(network, params),
        rounds=tuple((one.sparsity, one.val_accuracy) for one in rounds),
        parent_val_accuracy=parent_val,
        parent_test_accuracy=trainer.accuracy(parent, parent_state, data.x_test, data.y_test),
        val_accuracy=accuracy,
        test_accuracy=trainer.accuracy(params, state, data.x_test, data.y_test),
        met=accuracy >= least,
    )


def trained_parent(trainer: Trainer, plan: Compression, progress: Any = None) -> tuple[Any, Any]:
    """(params, state) of the float parent."""
    network = trainer.network
    if plan.float_steps == 0:
        return network.params, network.state
    lesson = Lesson("float", plan.float_steps, plan.rate)
    weights, state = trainer.train(free_weights(network.params), network.state, lesson, None, progress)
    return weights.params, trainer.settled(weights.params, state, SETTLE_STEPS)


def _clustered(trainer: Trainer, plan: Compression, one: Pruned, bits: dict[int, int], teacher: Teacher | None,
               progress: Any) -> tuple[tuple[Stored, ...], Any]:  # fmt: skip
    """(stored leaves, state) after tables were set by k-means and trained."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(built(one.weights))]
    tables: list[Any] = [None] * len(leaves)
    labels: list[Any] = [None] * len(leaves)
    for i, width in bits.items():
        tables[i] = jnp.asarray(table_of(leaves[i], width))
        if plan.labels == "held":
            labels[i] = places(jnp.asarray(leaves[i], tables[i].dtype), tables[i])
    weights = Weights(one.weights.params, one.weights.masks, tuple(tables), tuple(labels))
    lesson = Lesson("cluster", plan.cluster_steps, plan.cluster_rate, plan.table_share, order=101)
    weights, state = trainer.train(weights, one.state, lesson, teacher, progress)
    full = [np.asarray(leaf) for leaf in jax.tree.leaves(built(weights))]
    stored = tuple(
        shared_leaf(w, np.asarray(weights.tables[i]), bits[i]) if i in bits else small_leaf(w, plan.small)
        for i, w in enumerate(full)
    )
    return stored, trainer.settled(_values(trainer.network, stored), state, SETTLE_STEPS)


def _values(network: Network, leaves: tuple[Stored, ...]) -> Any:
    return jax.tree.unflatten(jax.tree.structure(network.params), [jnp.asarray(value(leaf)) for leaf in leaves])


def _bits(network: Network, plan: Compression) -> dict[int, int]:
    """Label bits by position of the leaf; ValueError for a layer that the network lacks."""
    names = {network.param_paths[i]: i for i in prunable(network)}
    asked = plan.bits_by_layer()
    unknown = sorted(set(asked) - set(names) - {""})
    if unknown:
        raise ValueError(
            f"compression: label_bits of '{unknown[0]}', which has no weights to share; legal: "
            f"{', '.join(names)} and '' for all others"
        )
    missing = [name for name in names if name not in asked and "" not in asked]
    if missing:
        raise ValueError(f"compression: no label_bits for {missing[0]}; give them, or those of all others under ''")
    return {i: asked.get(name, asked.get("", 0)) for name, i in names.items()}
