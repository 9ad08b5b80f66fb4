"""The file of a compressed network: bytes by hand, round trips, and one message for whatever is wrong with it."""

import dataclasses
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.compression import Compressed
from cooptim.descent.stored import SharedLeaf, shared_leaf, small_leaf
from cooptim.export.compressed_file import load_compressed, save_compressed


def dense(params, state, x, rngs, train):
    return (x @ params["w"] + params["b"]) * state["scale"], state


def compressed(sparse=0.9, bits=3, dtype=np.float32, width=400):
    """A layer of random weights: rows with densities of their own, a bias, a state."""
    rng = np.random.default_rng(3)
    rows = rng.beta(1.0, 1.0 / (1.0 - sparse) - 1.0, (300, 1)) if sparse else np.ones((300, 1))
    w = np.where(rng.random((300, width)) < rows, rng.normal(size=(300, width)), 0.0).astype(dtype)
    table = np.linspace(-2.0, 2.1, 2**bits - (sparse > 0))
    leaf = shared_leaf(w, np.append(table, 0.0) if sparse else table, bits)
    params = {"b": jnp.asarray(rng.normal(size=width), dtype), "w": jnp.asarray(w)}
    state = {"scale": jnp.asarray([1.5], jnp.float32)}
    network = cooptim.trace(dense, params, np.zeros((1, 300), dtype), state=state)
    leaves = (small_leaf(params["b"], "int8"), leaf)
    return Compressed(network, leaves, state, 0.9, ((0.9, 0.9),), 0.9, 0.9, 0.9, 0.9, True)


@pytest.fixture(scope="module")
def case():
    return compressed()


@pytest.fixture
def written(case, tmp_path):
    path = tmp_path / "net.czf"
    return path, save_compressed(path, case), path.read_bytes()


@pytest.mark.float32
@pytest.mark.parametrize(
    ("sparse", "bits", "dtype"), [(0.9, 3, np.float32), (0.0, 8, np.float32), (0.6, 1, jnp.bfloat16)]
)
def test_what_is_read_is_what_was_written(tmp_path, sparse, bits, dtype):
    one = compressed(sparse, bits, dtype, width=40)
    save_compressed(tmp_path / "net.czf", one)
    params, state = load_compressed(tmp_path / "net.czf", one.network)
    for found, wanted in zip(jax.tree.leaves((params, state)), jax.tree.leaves((one.params, one.state)), strict=True):
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted)
    assert params["w"].dtype == dtype and len(np.unique(np.asarray(params["w"], np.float32))) <= 2**bits


@pytest.mark.float32
def test_the_size_is_that_of_the_file_and_the_law_is_within_two_percent(case, written):
    _, size, raw = written
    assert size.total == len(raw) == size.header + size.state + sum(leaf.coded + leaf.table for leaf in size.leaves)
    bias, weights = size.leaves
    assert (bias.code, bias.coded, size.state) == ("int8", 400 + 4, 4)
    assert weights.code == "huffman_runs" and weights.table == 2 * 8 and weights.coded > 10_000 // 2
    assert weights.estimated == pytest.approx(weights.coded, rel=0.02)
    # Zeros are independent within a row here, which is what the law without counts of runs takes them to be.
    assert weights.by_density == pytest.approx(weights.coded, rel=0.02) and weights.by_density != weights.estimated
    assert size.ratio == 4 * (300 * 400 + 400) / len(raw)


@pytest.mark.float32
def test_the_shorter_order_of_axes_is_sent(tmp_path):
    # Whole columns are zero, here and there: only along the first axis do zeros stand together.
    one = compressed(0.5)
    labels = one.leaves[1].labels.copy()
    labels[:, np.random.default_rng(1).random(400) < 0.85] = 0
    for turned, found in ((True, labels), (False, np.ascontiguousarray(labels.T).reshape(300, 400))):
        case = dataclasses.replace(one, leaves=(one.leaves[0], dataclasses.replace(one.leaves[1], labels=found)))
        save_compressed(tmp_path / "net.czf", case)
        header = zlib.decompressobj().decompress((tmp_path / "net.czf").read_bytes()[12:])
        assert header.count(b",3,1]" if turned else b",3,0]") == 1
        assert np.array_equal(load_compressed(tmp_path / "net.czf", one.network)[0]["w"], case.params["w"])


def remade(raw, header=None, body=None):
    """A file whose checksum is right whatever it says."""
    length = struct.unpack_from("<4sII", raw)[1]
    head = raw[12 : 12 + length] if header is None else zlib.compress(header)
    rest = raw[12 + length :] if body is None else body
    return struct.pack("<4sII", b"Czf1", len(head), zlib.crc32(head + rest)) + head + rest


DAMAGED = {
    "nothing": (lambda raw: b"", "it starts with b'' and not with b'Czf1'; give a file of `cooptim compress`"),
    "another file": (lambda raw: b"PK\3\4" + raw[4:], "it starts with b'PK"),
    "cut": (lambda raw: raw[:-1], "damaged or truncated, its checksum does not match; fetch or write it again"),
    "cut in its head": (lambda raw: raw[:9], "it starts with"),
    "a flipped bit": (lambda raw: raw[:700] + bytes([raw[700] ^ 4]) + raw[701:], "its checksum does not match"),
    "a long header": (lambda raw: struct.pack("<4sII", b"Czf1", 10**9, zlib.crc32(raw[12:])) + raw[12:], "a header of"),
    "no JSON": (lambda raw: remade(raw, b"{"), "its header does not read"),
    "no leaves": (lambda raw: remade(raw, b"{}"), "its header does not read"),
    "another shape": (lambda raw: remade(raw, header_of(raw).replace(b"[300,400]", b"[400,300]")), "w is .400, 300."),
    "a short body": (lambda raw: remade(raw, body=b"1234"), "leaf b: "),
}


def of_table(raw, entries=8, bits=3, kind="float16"):
    """The file with another description of the table of its second leaf."""
    header = header_of(raw)
    assert header.count(b'"float16",8,3,') == 1
    return remade(raw, header.replace(b'"float16",8,3,', b'"%s",%d,%d,' % (kind.encode(), entries, bits)))


DAMAGED |= {
    "labels of 44 bits": (lambda raw: of_table(raw, bits=44), "leaf w: .* 44 label bits; legal are whole numbers from"),
    "no labels": (lambda raw: of_table(raw, bits=0), "leaf w: .* 0 label bits; legal are whole numbers from 1 to 8"),
    "no entries": (lambda raw: of_table(raw, entries=0), "leaf w: its table has 0 entries, and 3 bits name 1 to 8"),
    "many entries": (lambda raw: of_table(raw, entries=9), "leaf w: its table has 9 entries, and 3 bits name 1 to 8"),
    "wide entries": (lambda raw: of_table(raw, kind="V99999999"), "leaf w: its table of 799999992 bytes does not fit"),
}


def header_of(raw):
    return zlib.decompressobj().decompress(raw[12:])


DAMAGED["another leaf"] = (
    lambda raw: remade(raw, header_of(raw).replace(b'"w"', b'"v"')), "of another network: v is only in the file",
)  # fmt: skip


@pytest.mark.float32
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_gives_one_message(case, written, kind):
    path, _, raw = written
    damage, said = DAMAGED[kind]
    path.write_bytes(damage(raw))
    with pytest.raises(ValueError, match=said) as found:
        load_compressed(path, case.network)
    assert str(found.value).startswith(f"compressed network {path}: ") and "\n" not in str(found.value)


@pytest.mark.float32
def test_a_stream_of_another_length_is_refused_before_it_is_read(case, written):
    path, size, raw = written
    start = size.header + size.leaves[0].coded + size.leaves[1].table
    body = raw[size.header : start + 8] + struct.pack("<I", 2**31) + raw[start + 12 :]
    path.write_bytes(remade(raw, body=body))
    with pytest.raises(ValueError, match="leaf w: its stream is not of 120000 words"):
        load_compressed(path, case.network)


def test_a_missing_file_is_said(case, tmp_path):
    with pytest.raises(ValueError, match="net.czf: cannot be read .No such file or directory.; check the path"):
        load_compressed(tmp_path / "net.czf", case.network)
    with pytest.raises(ValueError, match="cannot be written"):
        save_compressed(tmp_path / "no" / "net.czf", case)


def test_labels_need_bits_for_their_table():
    leaf = SharedLeaf(np.zeros(8, np.float16), np.zeros((2, 2), np.uint8), "float32")
    assert leaf.bits == 3
