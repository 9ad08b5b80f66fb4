"""Accuracy and zero rates of a network under a design, in chunks of one shape so that one program serves all."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cooptim.compile import compiled
from cooptim.descent.faults import Faults
from cooptim.descent.running import at_rest
from cooptim.descent.stages import decided
from cooptim.design.design import Design
from cooptim.network.errors import ErrorRates
from cooptim.network.stats import Stats
from cooptim.network.trace import Network

_FEW = 4  # draws of errors that tell a search how accurate a design is


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """Evaluates in eval mode; `chunk` images a call. With faults, everything is measured under draws of errors."""

    network: Network
    chunk: int
    faults: Faults | None = None

    def __post_init__(self) -> None:
        def run(params, state, design, x, labels, counted, draw, part):  # type: ignore[no-untyped-def]
            errors = self._drawn(design, draw, part)
            logits, _, stats = self.network.apply(params, state, x, design, train=False, errors=errors)
            margin = None if design is None else design.exit_margin
            logits, reach = decided(self.network.workload, logits, margin)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            hits = (jnp.argmax(logits, axis=-1) == labels).astype(loss.dtype)
            return jnp.sum(loss * counted), jnp.sum(hits * counted), dataclasses.replace(stats, reach=reach)

        def staged(params, state, design, x, draw, part):  # type: ignore[no-untyped-def]
            errors = self._drawn(design, draw, part)
            return self.network.apply(params, state, x, design, train=False, errors=errors)[0]

        def settle(params, state, design, x, key):  # type: ignore[no-untyped-def]
            errors = None
            if self.faults is not None and design is not None:
                errors = self.faults.in_step(jnp.asarray(design.supply_v), key)
            return self.network.apply(params, state, x, design, train=True, rngs=key, errors=errors)[1]

        def weights(params, state, design, x):  # type: ignore[no-untyped-def]
            return self.network.apply(params, state, x, design, train=False)[2].weight_density

        object.__setattr__(self, "_run", compiled(run))
        object.__setattr__(self, "_weights", compiled(weights))
        object.__setattr__(self, "_settle", compiled(settle))
        object.__setattr__(self, "_staged", compiled(staged))

    @property
    def few(self) -> range:
        """The draws of errors that tell a search how accurate a design is; one where none differs from another."""
        return range(_FEW if self.faults is not None and self.faults.differ else 1)

    def _drawn(self, design: Design | None, draw: Any, part: Any) -> ErrorRates | None:
        if self.faults is None or design is None:
            return None
        return self.faults.in_draw(jnp.asarray(design.supply_v), draw, part)

    def settled(self, params: Any, state: Any, design: Design | None, batches: Iterable[np.ndarray]) -> Any:
        """State of the network that training-mode passes lead to with everything else held.

        Batch statistics trail behind weights and quantizers that still move; at few bits that lag alone has cost
        17 points of accuracy. Running means are taken where they come to rest, on the first `MEAN_PASSES` batches; any
        other state is what a pass over every batch makes of it.
        """

        def one_pass(state: Any, step: int, x: np.ndarray) -> Any:
            return self._settle(params, state, design, x, jax.random.key(step))  # type: ignore[attr-defined]

        return at_rest(one_pass, state, batches)

    def accuracy(
        self, params: Any, state: Any, design: Design | None, x: np.ndarray, labels: np.ndarray
    ) -> tuple[float, float]:
        """(share of correct labels, mean cross-entropy [nat]) over all images; with faults, over a few draws.

        design: None for the network as it is.
        """
        found = [self._over(params, state, design, x, labels, draw) for draw in self.few]
        return float(np.mean([one[0] for one in found])), float(np.mean([one[1] for one in found]))

    def accuracies(
        self, params: Any, state: Any, design: Design, x: np.ndarray, labels: np.ndarray, draws: int
    ) -> tuple[float, ...]:
        """Share of correct labels in each of `draws` draws of errors that no search has seen; one if all are alike."""
        each = range(_FEW, _FEW + draws) if self.faults is not None and self.faults.differ else (0,)
        return tuple(self._over(params, state, design, x, labels, draw)[0] for draw in each)

    def _over(
        self, params: Any, state: Any, design: Design | None, x: np.ndarray, labels: np.ndarray, draw: int
    ) -> tuple[float, float]:
        loss, hits = 0.0, 0.0
        for start in range(0, len(x), self.chunk):
            part, names = x[start : start + self.chunk], labels[start : start + self.chunk]
            missing = self.chunk - len(part)
            counted = np.concatenate([np.ones(len(part)), np.zeros(missing)]).astype(np.float32)
            part = np.concatenate([part, np.repeat(part[:1], missing, axis=0)]) if missing else part
            names = np.concatenate([names, np.repeat(names[:1], missing)]) if missing else names
            at = np.uint32(draw), np.uint32(start)
            out = self._run(params, state, design, part, names, counted, *at)  # type: ignore[attr-defined]
            loss, hits = loss + float(out[0]), hits + float(out[1])
        return hits / len(x), loss / len(x)

    def logits(self, params: Any, state: Any, design: Design, x: np.ndarray, draw: int = 0) -> np.ndarray:
        """Output for all images, [stage, image, class] of a network with early exits; in one draw of errors."""
        parts = []
        for start in range(0, len(x), self.chunk):
            part = x[start : start + self.chunk]
            filled = np.concatenate([part, np.repeat(part[:1], self.chunk - len(part), axis=0)])
            at = np.uint32(draw), np.uint32(start)
            parts.append(np.asarray(self._staged(params, state, design, filled, *at))[..., : len(part), :])  # type: ignore[attr-defined]
        return np.concatenate(parts, axis=-2)

    def reach(self, params: Any, state: Any, design: Design, x: np.ndarray) -> Float[Array, "layer"]:
        """Share of all images for which each layer runs under the design's margins; with faults, over a few draws."""
        each = [self.logits(params, state, design, x, draw) for draw in self.few]
        found = decided(self.network.workload, jnp.asarray(np.concatenate(each, axis=-2)), design.exit_margin)[1]
        if found is None:
            raise ValueError(f"reach: {self.network.workload.name} has no exits, or this design no margins for them")
        return found

    def weight_density(self, params: Any, state: Any, design: Design, x: np.ndarray) -> Float[Array, "layer"]:
        """Share of non-zero words of each layer's weights, for which one image serves: nothing of it is computed.

        Of a product of two activations it is that image's share.
        """
        return self._weights(params, state, design, x)  # type: ignore[attr-defined]

    def stats(self, params: Any, state: Any, design: Design, x: np.ndarray, labels: np.ndarray) -> Stats:
        """Zero rates averaged over the whole chunks of x (at least one; x is repeated when shorter)."""
        if len(x) < self.chunk:
            times = -(-self.chunk // len(x))
            x = np.concatenate([x] * times)[: self.chunk]
            labels = np.concatenate([labels] * times)[: self.chunk]
        counted = np.ones(self.chunk, np.float32)
        first = np.uint32(0)
        parts = [
            self._run(  # type: ignore[attr-defined]
                params, state, design, x[s : s + self.chunk], labels[s : s + self.chunk], counted, first, np.uint32(s)
            )[2]
            for s in range(0, len(x) - self.chunk + 1, self.chunk)
        ]  # fmt: skip
        return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *parts)
