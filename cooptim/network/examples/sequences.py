"""Networks that read an image as a sequence: an LSTM over its rows, a transformer over its patches.

Dimensions are ours, small enough for a CPU; the parts are those of Hochreiter and Schmidhuber 1997 with forget gates
(Gers et al. 2000) and of Dosovitskiy et al. 2021 (vision transformer: patches, positions, pre-normalized blocks), with
a mean over patches in place of the class token (Zhai et al. 2022).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cooptim.network.examples.parts import Image, Logits, conv

Tokens = Float[Array, "batch token feature"]


class LSTMClassifier(nnx.Module):
    """One LSTM over the rows of an image, a row's pixels at a time, and a dense layer on its last output."""

    def __init__(self, rngs: nnx.Rngs, features: int = 28, hidden: int = 64, classes: int = 10) -> None:
        self.hidden = hidden
        self.input = nnx.Linear(features, 4 * hidden, rngs=rngs)  # input, forget, cell and output gate side by side
        self.state = nnx.Linear(hidden, 4 * hidden, use_bias=False, rngs=rngs)
        self.fc = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of images whose rows hold `features` numbers (columns times channels)."""
        batch, rows = x.shape[:2]
        gates = self.input(x.reshape(batch, rows, -1))  # of all rows at once: it does not wait for the state
        graph, weights = nnx.split(self.state)

        def step(carry: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], None]:
            out, cell = carry
            i, f, g, o = jnp.split(row + nnx.merge(graph, weights)(out), 4, axis=-1)
            cell = nnx.sigmoid(f + 1.0) * cell + nnx.sigmoid(i) * jnp.tanh(g)
            return (nnx.sigmoid(o) * jnp.tanh(cell), cell), None

        start = jnp.zeros((batch, self.hidden), gates.dtype)
        (out, _), _ = jax.lax.scan(step, (start, start), jnp.swapaxes(gates, 0, 1))
        return self.fc(out)


class _Encoder(nnx.Module):
    """Attention and a dense pair, each normalized before and added to what came in."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Tokens) -> Tokens:
        """Tokens of the same width."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1)
        query, key, value = (qkv[:, :, part] for part in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(float(query.shape[-1]))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", nnx.softmax(scores), value)
        x = x + self.out(mixed.reshape(batch, tokens, width))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class VisionTransformer(nnx.Module):
    """Patches, learned positions, pre-normalized encoder blocks, a mean over patches and a dense layer."""

    def __init__(
        self, rngs: nnx.Rngs, side: int = 32, patch: int = 4, width: int = 64, heads: int = 4, depth: int = 3,
        channels: int = 3, classes: int = 10,
    ) -> None:  # fmt: skip
        self.patches = conv((channels, width), (patch, patch), rngs, stride=patch, padding="VALID", bias=True)
        tokens = (side // patch) ** 2
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, tokens, width)))
        self.blocks = nnx.List([_Encoder(width, heads, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.fc = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x: Image) -> Logits:
        """Logits of images of side x side pixels."""
        x = self.patches(x)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1]) + self.positions[...]
        for block in self.blocks:
            tokens = block(tokens)
        return self.fc(jnp.mean(self.norm(tokens), axis=1))


def lstm_classifier(rngs: nnx.Rngs) -> LSTMClassifier:
    """An LSTM of 64 units over the 28 rows of 28x28x1 images."""
    return LSTMClassifier(rngs)


def vision_transformer(rngs: nnx.Rngs) -> VisionTransformer:
    """A vision transformer of three blocks over the 64 patches of 32x32x3 images."""
    return VisionTransformer(rngs)
