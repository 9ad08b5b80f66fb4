"""A smaller network: channels taken out of the layer that makes them and of all that reads them."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cooptim.network.channels import Channel, bundles, channels, kept_indices, removed, silenced
from cooptim.network.trace import Network, retraced

PyTree = Any
SCORES = ("l1", "scale")
_CLOSE = 1e-4  # of the largest output: how far the smaller network may be from the silenced one


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A smaller network, its leaves in `network.params` and `network.state`.

    Attributes:
      channels: by the weights that make them, (before, after).
      error: largest difference of its output to that of the same network with zeros in place of what was removed, over
        the largest output.
      kept: (position of a leaf among those of params and then of state, axis) -> indices that stay; axes that lose none
        are left out.
    """

    network: Network
    channels: Mapping[str, tuple[int, int]]
    error: float
    kept: Mapping[tuple[int, int], np.ndarray] = dataclasses.field(default_factory=dict)


class UnshrinkableError(ValueError):
    """A network whose channels cannot be removed; the message names them."""


def channel_scores(
    network: Network, params: PyTree, found: Sequence[Channel], score: str = "l1"
) -> Float[np.ndarray, "channel"]:
    """How much each channel matters; the least is removed first.

    Args:
      score: 'l1', the mean magnitude of the weights that make it (Li et al., "Pruning filters for efficient ConvNets",
        ICLR 2017); 'scale', the magnitude of its normalization's scale (Liu et al., "Network slimming", ICCV 2017).

    Raises ValueError for another score, and for 'scale' where a channel has none.
    """
    if score not in SCORES:
        raise ValueError(f"channels: score '{score}' is not known; use one of {', '.join(SCORES)}")
    leaves = [np.abs(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(params)]
    out = np.zeros(len(found))
    for number, channel in enumerate(found):
        used: Sequence[tuple[int, int, int]] = channel.makers
        if score == "scale":
            used = [at for at in channel.places if at[0] < len(leaves) and network.param_paths[at[0]].endswith("scale")]
            if not used:
                who = network.param_paths[channel.makers[0][0]]
                raise ValueError(f"channels of {who}: no leaf 'scale' goes with them; use the score 'l1'")
        out[number] = np.mean([np.mean(np.take(leaves[leaf], index, axis)) for leaf, axis, index in used])
    return out


def shrunk(
    network: Network,
    params: PyTree,
    state: PyTree,
    x: PyTree,
    share: float | Mapping[str, float],
    *,
    score: str = "l1",
    rngs: PyTree = None,
) -> Shrunk:
    """The network without the least of its channels: fewer outputs of a layer, fewer inputs of the next.

    Every equation that a channel passes is followed (normalization, pooling, flatten, concatenation, residual sum), and
    the network's own function is traced again with the smaller leaves.

    Args:
      x: inputs, on which the smaller network is held against the silenced one.
      share: of channels to remove, of every layer or of each by the names of `channel_counts`; one always stays.
      rngs: as in `trace`.

    Raises ValueError for a share outside [0, 1) and for an unknown layer, UnshrinkableError, naming the channels, where
    none can be removed, where the function does not take smaller leaves or where its output changes.
    """
    found = channels(network, params, state, x)
    gone, counts = _chosen(network, params, found, bundles(found, network.param_paths), share, score)
    return _without(network, params, state, x, gone, counts, rngs)


def without_dead(
    network: Network, params: PyTree, state: PyTree, x: PyTree, *, keep: Collection[str] = (), rngs: PyTree = None
) -> Shrunk:
    """The same function without its dead channels: those that no weight reads, or that no weight makes.

    Pruning single weights leaves such channels, and a chip still takes the cycles and the words of each. What is dead
    by its weights counts where zeros in its place leave the output on `x` as it is: a channel of which only a bias is
    left, above 0 behind a rectifier, stays. Without a dead channel the network comes back.

    Args:
      params: with zeros for what is pruned, as `Network.harden` leaves them; of layers whose words have a zero.
      x: inputs, on which the functions are held against each other.
      keep: names of `channel_counts` that lose nothing.

    Raises ValueError for an unknown name, UnshrinkableError as `shrunk` does.
    """
    found = channels(network, params, state, x)
    groups = bundles(found, network.param_paths)
    unknown = [name for name in keep if name not in groups]
    if unknown:
        raise ValueError(f"channels of '{unknown[0]}' are not known; legal: {', '.join(groups)}")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    dead: list[Channel] = []
    for name, numbers in groups.items():
        here = [found[number] for number in numbers if name not in keep and _is_dead(leaves, found[number])]
        dead += here[: len(numbers) - 1]  # one always stays
    gone = _harmless(network, params, state, x, dead)
    lost = {id(channel) for channel in gone}
    counts = {name: (len(numbers), sum(id(found[n]) not in lost for n in numbers)) for name, numbers in groups.items()}
    if not gone:
        return Shrunk(dataclasses.replace(network, params=params, state=state), counts, 0.0)
    return _without(network, params, state, x, gone, counts, rngs)


def dead_channels(network: Network, params: PyTree, state: PyTree, x: PyTree) -> dict[str, tuple[int, int]]:
    """(dead, all) channels by the weights that make them: dead are those that no weight reads, or that none makes.

    Args:
      params: with zeros for what is pruned, as `Network.harden` leaves them. x: inputs; their shape counts.
    """
    found = channels(network, params, state, x)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    groups = bundles(found, network.param_paths)
    return {name: (sum(_is_dead(leaves, found[n]) for n in some), len(some)) for name, some in groups.items()}


def _is_dead(leaves: Sequence[np.ndarray], channel: Channel) -> bool:
    """Whether all the weights that read it are zero, or all that make it."""
    return any(
        places and not any(np.any(np.take(leaves[leaf], index, axis)) for leaf, axis, index in places)
        for places in (channel.readers, channel.makers)
    )


def _harmless(network: Network, params: PyTree, state: PyTree, x: PyTree, dead: list[Channel]) -> list[Channel]:
    """Those of the channels that may be zero without changing the output on x; halved until each set is one or none."""
    leaves, tree = jax.tree.flatten((params, state))
    run = jax.jit(lambda params, state: network.apply(params, state, x)[0])
    wanted = run(params, state)

    def among(some: list[Channel]) -> list[Channel]:
        if not some or _apart(run(*jax.tree.unflatten(tree, silenced(leaves, some))), wanted) <= _CLOSE:
            return some
        half = len(some) // 2
        return [] if half == 0 else among(some[:half]) + among(some[half:])

    return among(dead)


def _without(
    network: Network, params: PyTree, state: PyTree, x: PyTree, gone: Sequence[Channel],
    counts: Mapping[str, tuple[int, int]], rngs: PyTree,
) -> Shrunk:  # fmt: skip
    """The network traced again without some channels, and held against the silenced one."""
    leaves, tree = jax.tree.flatten((params, state))
    smaller_params, smaller_state = jax.tree.unflatten(tree, removed(leaves, gone))
    cut = [name for name, (before, after) in counts.items() if after < before]
    try:
        smaller = retraced(network, smaller_params, smaller_state, x, rngs)
        found_y = smaller.apply(smaller_params, smaller_state, x)[0]
    except Exception as error:  # whatever the user's function does with shapes that it did not expect
        reason = " ".join(str(error).split())[:200]
        raise UnshrinkableError(
            f"{network.workload.name}: its function does not take fewer channels of {', '.join(cut)} "
            f"({type(error).__name__}: {reason}); write sizes as those of its arrays (x.shape), leave these layers out "
            "with a share of 0, or build the smaller model and trace that (a Linen module declares its sizes)"
        ) from error
    silent = jax.tree.unflatten(tree, [jnp.asarray(leaf) for leaf in silenced(leaves, gone)])
    apart = _apart(found_y, network.apply(silent[0], silent[1], x)[0])
    if not apart <= _CLOSE:
        raise UnshrinkableError(
            f"{network.workload.name}: without channels of {', '.join(cut)} its output is {apart:.2g} of its largest "
            "away from that of the network with zeros in their place, as where a constant of the program counts them; "
            "leave these layers out with a share of 0"
        )
    return Shrunk(smaller, counts, apart, kept_indices(leaves, gone))


def channel_counts(network: Network, params: PyTree, state: PyTree, x: PyTree) -> dict[str, int]:
    """Number of channels that can be removed, by the weights that make them; tied layers are joined by '+'."""
    found = channels(network, params, state, x)
    return {name: len(numbers) for name, numbers in bundles(found, network.param_paths).items()}


def _chosen(network, params, found, groups, share, score):  # type: ignore[no-untyped-def]
    """(channels to remove, (before, after) by name)."""
    if not groups:
        raise UnshrinkableError(
            f"{network.workload.name}: no layer has channels that can be removed: what they make reaches the output, a "
            "sum over channels or an equation that is not followed"
        )
    shares = dict(share) if isinstance(share, Mapping) else dict.fromkeys(groups, share)
    for name, one in shares.items():
        if name not in groups:
            raise ValueError(
                f"channels of '{name}' cannot be removed, or there is no such layer; legal: {', '.join(groups)}"
            )
        if not 0.0 <= one < 1.0:
            raise ValueError(f"channels of {name}: share {one:g} is out of range; legal are 0 up to, without, 1")
    scores = channel_scores(network, params, found, score)
    gone: list[Channel] = []
    counts = {}
    for name, numbers in groups.items():
        ranked = sorted(numbers, key=lambda number: (scores[number], number))
        cut = min(round(shares.get(name, 0.0) * len(numbers)), len(numbers) - 1)
        gone += [found[number] for number in ranked[:cut]]
        counts[name] = (len(numbers), len(numbers) - cut)
    return gone, counts


def _apart(found: PyTree, wanted: PyTree) -> float:
    """Largest difference over the largest magnitude; infinite where shapes differ or a number is none."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape or not np.all(np.isfinite(a) & np.isfinite(b)):
            return float("inf")
        worst = max(worst, float(np.max(np.abs(a - b), initial=0.0) / max(np.max(np.abs(b), initial=0.0), 1e-30)))
    return worst
