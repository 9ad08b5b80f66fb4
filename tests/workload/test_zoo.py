"""Published networks and networks from CSV files, against totals kept by hand, other tables and the tracer."""

import csv
import importlib.resources
import re
import tomllib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cooptim.network import examples, trace
from cooptim.workload import INPUT, Bounds, zoo

# layers, MACs, weights. Source: the totals beside the tables that the zoo was filled from, which say how each was
# checked against others (Eyeriss, timeloop-accelergy-exercises, ucb-bar/dosa, mlcommons/tiny, torchvision).
TOTALS = {
    "lenet5": (5, 416_520, 61_470),
    "alexnet": (8, 724_406_816, 60_954_656),
    "alexnet_ungrouped": (8, 1_135_256_096, 62_367_776),
    "alexnet_one_tower": (8, 714_188_480, 61_090_496),
    "vgg16": (16, 15_470_264_320, 138_344_128),
    "googlenet": (58, 1_582_671_872, 6_990_272),
    "resnet8": (10, 12_501_632, 77_360),
    "resnet18": (21, 1_814_073_344, 11_678_912),
    "resnet50_v1": (54, 3_857_973_248, 25_502_912),
    "resnet50": (54, 4_089_184_256, 25_502_912),
    "mobilenet_v1": (28, 568_740_352, 4_209_088),
    "mobilenet_v1_025_96_vww": (28, 7_489_664, 208_112),
    "mobilenet_v2": (53, 300_774_272, 3_469_760),
    "ds_cnn": (10, 2_656_768, 22_016),
    "mlperf_tiny_autoencoder": (10, 264_192, 264_192),
    "xception": (75, 8_357_403_496, 22_800_424),
    "densenet121": (121, 2_834_161_664, 7_894_208),
    "densenet161": (161, 7_727_907_072, 28_460_064),
    "densenet201": (201, 4_291_365_888, 19_783_872),
    "inception_v3": (95, 5_713_216_096, 23_799_136),
    "bert_base_seq128": (96, 11_173_625_856, 84_934_656),
}
TRACED = ("lenet5", "alexnet", "alexnet_ungrouped", "resnet8", "resnet18", "mobilenet_v1", "ds_cnn")
FOLDER = importlib.resources.files("cooptim.workload") / "networks"
FEW = ("layer", "K", "C", "OY", "OX", "FY", "FX")


def rows(path):
    text = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in text if not line.startswith("#")))


def table(tmp_path, *lines, header=FEW):
    path = tmp_path / "net.csv"
    path.write_text("\n".join([",".join(header), *lines]) + "\n", encoding="utf-8")
    return path


def layer_of(network, name):
    work = zoo.network(network)
    return work.layers[work.index(name)]


def test_the_names_are_those_of_the_totals():
    assert zoo.names() == tuple(TOTALS)


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_the_published_ones(name):
    work = zoo.network(name)
    assert (work.name, len(work.layers), work.macs, work.weights) == (name, *TOTALS[name])


def test_index_and_totals_are_those_of_the_reference(shared):
    reference = {row["network"]: row for row in rows(shared / "reference/networks/totals.csv")}
    columns = ("layers", "MACs", "params", "weights")
    for row in rows(FOLDER / "index.csv"):
        total = reference.pop(row["network"])
        assert [row[column] for column in columns] == [total[column] for column in columns], row["network"]
        assert TOTALS[row["network"]] == tuple(int(total[column]) for column in ("layers", "MACs", "weights"))
    assert not reference


@pytest.mark.parametrize("name", TOTALS)
def test_tables_are_those_of_the_reference(name, shared):
    found, given = rows(FOLDER / f"{name}.csv"), rows(shared / f"reference/networks/{name}.csv")
    for row in given:
        row["inputs"] = row["inputs"].replace("embeddings", INPUT)  # the sum of BERT's embeddings enters from outside
    assert found == given


@pytest.mark.parametrize("name", TOTALS)
def test_every_layer_agrees_with_its_row(name):
    work = zoo.network(name)
    for layer, row in zip(work.layers, rows(FOLDER / f"{name}.csv"), strict=True):
        b, n = layer.bounds, {column: int(cell) for column, cell in row.items() if cell.isdigit()}
        assert (layer.name, layer.macs) == (row["layer"], n["MACs"])
        assert (0 if layer.kind == "matmul" else layer.weight_words) == n["weights"], row["layer"]
        assert (b.FY, b.FX, layer.stride) == (n["FY"], n["FX"], (n["stride"],) * 2)
        if layer.kind == "conv":
            assert (b.B, b.G, b.K * b.G, b.C * b.G, b.OY, b.OX) == (
                *(n[column] for column in ("N", "groups", "K", "C", "OY", "OX")),
            )
        sources = set(row["inputs"].replace("+", ";").split(";"))
        assert set(layer.inputs) == sources and len(layer.inputs) == len(sources)


@pytest.mark.parametrize("name", TOTALS)
def test_windows_touch_the_rows_of_the_tables_input(name):
    for layer, row in zip(zoo.network(name).layers, rows(FOLDER / f"{name}.csv"), strict=True):
        if layer.kind != "conv":
            continue
        for axis, size, outputs, taps in ((0, "IY", "OY", "FY"), (1, "IX", "OX", "FX")):
            before, stride, inside = layer.padding[axis][0], int(row["stride"]), range(int(row[size]))
            read = {o * stride + f - before for o in range(int(row[outputs])) for f in range(int(row[taps]))}
            assert layer.input_extent(axis) == len(read & set(inside)), (row["layer"], axis)
            if stride <= int(row[taps]):
                # With overlapping windows only what a floor division drops at the far end stays untouched.
                assert int(row[size]) - layer.input_extent(axis) < stride
            assert {p for p in read if p not in inside} == {
                *range(-before, 0),
                *(p for p in read if p >= int(row[size])),
            }


@pytest.mark.parametrize(
    ("network", "layer", "extent", "padding"),
    [
        ("alexnet", "conv1", (227, 227), ((0, 0), (0, 0))),  # 54 * 4 + 11 = 227
        ("alexnet_one_tower", "conv1", (224, 224), ((1, 2), (1, 2))),  # 227 spanned by 224 rows
        ("resnet18", "conv1", (224, 224), ((2, 3), (2, 3))),  # 111 * 2 + 7 = 229
        ("resnet18", "layer2.0.down", (28, 28), ((0, 0), (0, 0))),  # 1x1 at stride 2: every other of 56 rows
        ("resnet50_v1", "layer3.0.conv1", (14, 14), ((0, 0), (0, 0))),  # of 28 rows
        ("mobilenet_v1", "dw2", (112, 112), ((0, 1), (0, 1))),  # 55 * 2 + 3 = 113
        ("ds_cnn", "conv0", (49, 10), ((4, 5), (1, 1))),  # 24 * 2 + 10 = 58 and 4 * 2 + 4 = 12
        ("inception_v3", "C0.7a", (17, 17), ((0, 0), (3, 3))),  # 1x7
    ],
)
def test_input_extents_equal_counts_by_hand(network, layer, extent, padding):
    found = layer_of(network, layer)
    assert ((found.input_extent(0), found.input_extent(1)), found.padding) == (extent, padding)


def test_a_stride_beyond_the_filter_skips_rows(tmp_path):
    path = table(tmp_path, "a,8,3,5,4,3,2,4,19,15", header=(*FEW, "stride", "IY", "IX"))
    work = zoo.read_csv(path)
    (layer,) = work.layers
    # rows 0-2 4-6 8-10 12-14 16-18; columns 0-1 4-5 8-9 12-13, and 14 untouched
    assert (layer.input_extent(0), layer.input_extent(1), layer.input_words) == (15, 8, 3 * 15 * 8)
    assert work.input_words == 3 * 19 * 15  # the whole tensor


def test_alexnet_has_the_two_groups_of_its_gpus():
    conv2 = layer_of("alexnet", "conv2")
    assert conv2.bounds == Bounds(B=1, G=2, K=128, C=48, OY=27, OX=27, FY=5, FX=5)
    assert conv2.weight_words == 307_200 and conv2.padding == ((2, 2), (2, 2))
    assert layer_of("alexnet_ungrouped", "conv2").bounds == Bounds(K=256, C=96, OY=27, OX=27, FY=5, FX=5)


def test_depthwise_rows_have_one_group_a_channel():
    assert layer_of("mobilenet_v2", "b2.dw").bounds == Bounds(G=96, OY=56, OX=56, FY=3, FX=3)


@pytest.mark.float32
@pytest.mark.parametrize("name", TRACED)
def test_the_traced_network_has_the_same_nests_and_edges(name):
    model = nnx.eval_shape(lambda: getattr(examples, name)(nnx.Rngs(0)))
    traced, listed = trace(model, examples.example_input(name)).workload, zoo.network(name)

    def facts(layer):
        # The example of LeNet-5 pads 28x28 digits in C1; the published table has 32x32 images.
        padding = None if name == "lenet5" else layer.padding
        sources = tuple(source.removesuffix(".kernel") for source in layer.inputs)
        return (layer.name.removesuffix(".kernel"), layer.kind, layer.bounds, layer.stride, padding, sources)

    assert [facts(layer) for layer in listed.layers] == [facts(layer) for layer in traced.layers]
    assert listed.outputs == tuple(output.removesuffix(".kernel") for output in traced.outputs)
    assert traced.input_words == (28 * 28 if name == "lenet5" else listed.input_words)


@pytest.mark.float32
def test_a_traced_encoder_block_has_the_nests_of_bert():
    def block(p, x):
        q, k, v = (jnp.einsum("btc,chd->bthd", x, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bqhd,bshd->bhqs", q, k))
        # As a product of two operands: einsum is free to swap them, and then the weights are the second.
        context = jnp.swapaxes(weights @ jnp.swapaxes(v, 1, 2), 1, 2)
        return jax.nn.gelu(jnp.einsum("bqhd,hdc->bqc", context, p["out"]) @ p["ffn1"]) @ p["ffn2"]

    shapes = {name: (768, 12, 64) for name in "qkv"} | {"out": (12, 64, 768), "ffn1": (768, 3072), "ffn2": (3072, 768)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    traced = trace(block, params, jax.ShapeDtypeStruct((1, 128, 768), jnp.float32)).workload
    listed = zoo.network("bert_base_seq128").layers[:8]
    names = dict(zip(traced.names, (layer.name for layer in listed), strict=True)) | {INPUT: INPUT}
    for found, layer in zip(traced.layers, listed, strict=True):
        assert (layer.kind, layer.bounds, layer.input_words) == (found.kind, found.bounds, found.input_words)
        assert layer.inputs == tuple(names[source] for source in found.inputs), layer.name
    assert zoo.network("bert_base_seq128").input_words == traced.input_words == 128 * 768


def test_seven_columns_are_a_network_whose_layers_follow_each_other(tmp_path):
    work = zoo.read_csv(table(tmp_path, "# two layers", "a,8,3,6,5,3,3", "", "b,4,8,4,3,3,3"))
    a, b = work.layers
    assert (work.name, work.outputs, work.input_words) == ("net", ("b",), 3 * 8 * 7)
    assert (a.kind, a.bounds, a.stride, a.padding) == (
        "conv", Bounds(K=8, C=3, OY=6, OX=5, FY=3, FX=3), (1, 1), ((0, 0), (0, 0)),
    )  # fmt: skip
    assert (a.inputs, b.inputs, a.repeat, a.weight_leaves) == ((INPUT,), ("a",), 1, ())


def test_optional_columns_have_their_documented_defaults(tmp_path):
    header = "type,layer,C,K,OX,OY,FX,FY,N,inputs".split(",")
    path = table(
        tmp_path,
        "dwconv,d,6,12,4,5,1,3,2,",
        "fc,f,30,10,1,1,1,1,7,d + input",
        "matmul,m,4,9,1,6,1,1,3,f;d",
        header=header,
    )
    d, f, m = zoo.read_csv(path).layers
    assert d.bounds == Bounds(B=2, G=6, K=2, C=1, OY=5, OX=4, FY=3, FX=1)  # two outputs a channel
    assert (f.kind, f.bounds, f.inputs) == ("dense", Bounds(K=10, C=30, OX=7), (INPUT, "d"))
    assert (m.kind, m.bounds, m.inputs, m.weight_words) == ("matmul", Bounds(G=3, K=9, C=4, OX=6), ("d", "f"), 108)


def test_a_table_written_by_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "own.csv"
    path.write_bytes(b'\xef\xbb\xbf"layer",K,C,OY,OX,FY,FX,MACs\r\n"a, b", 8 ,3,6,5,3,3,\r\n')
    (layer,) = zoo.read_csv(path).layers
    assert (layer.name, layer.macs) == ("a, b", 8 * 3 * 6 * 5 * 9)


GOOD = "a,8,4,6,6,3,3"
FULL = (*FEW, "type", "N", "stride", "groups", "MACs", "params", "weights", "IY", "IX", "inputs")


def one(**cells):
    """A row of FULL: a 3x3 convolution of 4 to 8 channels on 6x6 outputs, with these cells changed."""
    good = dict(zip(FEW, GOOD.split(","), strict=True))
    return ",".join({**dict.fromkeys(FULL, ""), **good, **cells}.values())


# Line, layer, found, legal, remedy.
BAD_ROWS = {
    "not a number": ([one(K="8x")], 2, "layer 'a'", "K = '8x'", "whole number from 1", "in digits"),
    "a point": ([one(OX="6.0")], 2, "layer 'a'", r"OX = '6\.0'", "whole number from 1", "without sign, point"),
    "zero": ([one(FY="0")], 2, "layer 'a'", "FY = '0'", "whole number from 1", "in digits"),
    "negative": ([one(stride="-1")], 2, "layer 'a'", "stride = '-1'", "whole number from 1", "without sign"),
    "too large": ([one(C="9" * 12)], 2, "layer 'a'", "C = '9{12}'", "from 1 to 1000000000", "in digits"),
    "blank shape": ([one(C="")], 2, "layer 'a'", "C = ''", "whole number from 1", "in digits"),
    "groups of C": ([one(groups="8")], 2, "layer 'a'", "C = 4", "multiple of its 8 groups", "C counts all groups"),
    "groups of K": ([one(K="7", groups="2")], 2, "layer 'a'", "K = 7", "multiple of its 2 groups", "correct K"),
    "depthwise": ([one(type="dwconv", groups="2")], 2, "layer 'a'", "groups = 2", "C = 4 for dwconv", "write C"),
    "heads": ([one(type="matmul", groups="4")], 2, "layer 'a'", "groups = 4", "1 for matmul", "heads in N"),
    "taps of fc": ([one(type="fc")], 2, "layer 'a'", "FY = 3, FX = 3", "1 for each in a row of type fc", "in C"),
    "type": ([one(type="pool")], 2, "layer 'a'", "type = 'pool'", "conv, dwconv, fc, matmul", "leave pooling"),
    "no name": ([one(), one(layer="")], 3, "found", "layer = ''", "a name without", "name the layer"),
    "the input's name": ([one(layer="input")], 2, "found", "layer = 'input'", "not 'input'", "name the layer"),
    "plus in a name": ([one(layer="a+b")], 2, "found", r"layer = 'a\+b'", "without ';' and", "name the layer"),
    "doubled": ([one(), "", one()], 4, "layer 'a'", "stands at line 2 too", "one row a name", "rename one"),
    "input": ([one(), one(layer="b", inputs="a+c")], 3, "layer 'b'", "'c'", "legal is input, a;", "layers above"),
    "own output": ([one(inputs="a")], 2, "layer 'a'", "inputs name 'a'", "legal is input;", "layers above"),
    "MACs": ([one(MACs="10369")], 2, "layer 'a'", "MACs = 10369", "10368, the product", "leave MACs out"),
    "weights": ([one(weights="287")], 2, "layer 'a'", "weights = 287", "288, the product", "leave weights out"),
    "params": ([one(params="287")], 2, "layer 'a'", "params = 287", "288 weights or more", "leave params out"),
    "few rows": ([one(IY="3")], 2, "layer 'a'", "IY = 3", "3 taps at stride 1 read 4 to 8", "leave its cell blank"),
    "many rows": ([one(IX="9")], 2, "layer 'a'", "IX = 9", "3 taps at stride 1 read 4 to 8", "leave its cell blank"),
    "cells": ([GOOD], 2, "found 7 cells", "legal is 17", "one a column", "add or remove commas"),
    "quotes": ([one(layer='"a')], 2, "not CSV", "end of data", "net.csv", "correct its quotes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_gets_one_message_of_file_line_found_legal_and_remedy(tmp_path, case):
    lines, line, *parts = BAD_ROWS[case]
    path = table(tmp_path, *lines, header=FULL)
    with pytest.raises(zoo.TableError) as error:
        zoo.read_csv(path)
    message = str(error.value)
    assert [part for part in (re.escape(f"{path}, line {line}"), *parts) if not re.search(part, message)] == [], message
    assert "\n" not in message


def test_the_row_that_the_bad_ones_change_is_good(tmp_path):
    stated = one(MACs="10368", weights="288", params="296", IY="8", IX="6", groups="1", N="1", inputs="input")
    (layer,) = zoo.read_csv(table(tmp_path, stated, header=FULL)).layers
    assert (layer.macs, layer.padding) == (8 * 4 * 36 * 9, ((0, 0), (1, 1)))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"layer,K,OY,OX,FX\na,1,1,1,1\n", ("line 1", "no column 'C', 'FY'", "layer, K, C, OY", "correct the header")),
        (b"layer;K;C;OY;OX;FY;FX\n", ("line 1", "no column", "separated by commas", "correct the header")),
        (b"layer,K,C,OY,OX,FY,FX,group\n", ("unknown column 'group'", "type, N, stride", "correct the header")),
        (b"layer,K,K,C,OY,OX,FY,FX\n", ("twice the column 'K'", "required", "correct the header")),
        (b"", ("empty table", "a header with layer, K, C, OY, OX, FY, FX", "fill it")),
        (b"# only a comment\n\n", ("empty table", "a header with layer", "fill it")),
        (b"layer,K,C,OY,OX,FY,FX\n", ("no layer", "one row or more", "add the network's rows")),
        (b"layer,K,C,OY,OX,FY,FX\n\xff\n", ("byte 0xff at 22", "UTF-8", "save it as CSV")),
    ],
)
def test_a_bad_file_gets_one_message(tmp_path, content, parts):
    path = tmp_path / "net.csv"
    path.write_bytes(content)
    with pytest.raises(zoo.TableError) as error:
        zoo.read_csv(path)
    assert [part for part in (str(path), *parts) if part not in str(error.value)] == [], str(error.value)


def test_an_absent_file_gets_one_message(tmp_path):
    with pytest.raises(zoo.TableError, match=r"none\.csv: cannot be read \(No such file.*check the path"):
        zoo.read_csv(tmp_path / "none.csv")


@pytest.mark.parametrize("ask", [zoo.network, zoo.source])
def test_an_unknown_network_gets_the_names(ask):
    with pytest.raises(
        ValueError, match="network 'resnet19' is not known; legal are lenet5, .*, bert_base_seq128; for"
    ):
        ask("resnet19")


def test_every_table_carries_its_source():
    for name in zoo.names():
        first = (FOLDER / f"{name}.csv").read_text(encoding="utf-8").splitlines()[0]
        assert zoo.source(name).startswith(first.removeprefix("# source: ")) and first.startswith("# source: ")
        assert "; checked: " in zoo.source(name) and re.search(r"(19|20)\d\d|arXiv", first)


def test_tables_travel_with_the_package(root):
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cooptim"]
    carried = {path for pattern in patterns for path in (root / "cooptim").glob(pattern)}
    assert {root / "cooptim/workload/networks" / f"{name}.csv" for name in (*TOTALS, "index")} <= carried
