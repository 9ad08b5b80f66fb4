"""The example networks against published layer tables, by shape only."""

import csv

import jax
import pytest
from flax import nnx

from cooptim.network import examples, trace
from cooptim.workload import INPUT

pytestmark = pytest.mark.float32

PUBLISHED = ("lenet5", "alexnet", "alexnet_ungrouped", "resnet8", "resnet18", "mobilenet_v1", "ds_cnn")


def by_shape(name):
    model = nnx.eval_shape(lambda: getattr(examples, name)(nnx.Rngs(0)))
    return trace(model, examples.example_input(name, batch=4))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_agree_to_the_last_digit(name, shared):
    total = {row["network"]: row for row in rows(shared / "reference/networks/totals.csv")}[name]
    net = by_shape(name)
    params = sum(leaf.size for leaf in jax.tree.leaves(net.params))
    found = (len(net.workload.layers), net.workload.macs, params, net.workload.weights)
    assert found == tuple(int(total[column]) for column in ("layers", "MACs", "params", "weights"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_layer_agrees_with_the_published_table(name, shared):
    table = rows(shared / f"reference/networks/{name}.csv")
    layers = by_shape(name).workload.layers
    assert [layer.name for layer in layers] == [row["layer"] + ".kernel" for row in table]
    for layer, row in zip(layers, table, strict=True):
        b, groups = layer.bounds, int(row["groups"])
        found = (b.G, b.K * b.G, b.C * b.G, b.OY, b.OX, b.FY, b.FX, layer.stride[0], layer.macs, layer.weight_words)
        columns = ("K", "C", "OY", "OX", "FY", "FX", "stride", "MACs", "weights")
        assert found == (groups, *(int(row[column]) for column in columns)), row["layer"]
        sources = {n if n == INPUT else n + ".kernel" for n in row["inputs"].replace("+", ";").split(";")}
        assert set(layer.inputs) == sources, row["layer"]


def test_digits_cnn_fills_sixty_four_lanes_twice():
    conv1, conv2, dense = by_shape("digits_cnn").workload.layers
    assert [(n.bounds.OY * n.bounds.OX, n.macs) for n in (conv1, conv2)] == [(64, 9216), (64, 294912)]
    assert dense.macs == 320


def test_lenet_300_100_has_its_three_dense_layers():
    net = by_shape("lenet_300_100")
    assert [(layer.bounds.K, layer.bounds.C) for layer in net.workload.layers] == [(300, 784), (100, 300), (10, 100)]
    assert sum(leaf.size for leaf in jax.tree.leaves(net.params)) == 235_500 + 30_100 + 1_010
