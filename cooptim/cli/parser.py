"""Options of the command line; imports nothing heavy, so that `--help` answers at once."""

import argparse

DEFAULT_MODEL = "cooptim.network.examples:digits_cnn"
DEFAULT_RATIO = 25.0
DEFAULT_LABEL_BITS = 4  # as EIE's
DEFAULT_RATIOS = "10,15,20,25"


def build_parser() -> argparse.ArgumentParser:
    """The parser with all its subcommands; `command` names the one that was given."""
    parser = argparse.ArgumentParser(
        prog="cooptim",
        description="One gradient descent over a neural network's weights and the knobs of the processor that runs it.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _optimize(commands.add_parser("optimize", help="train weights and hardware together", description=OPTIMIZE))
    _compress(commands.add_parser("compress", help="a network in one small file", description=COMPRESS))
    _pareto(commands.add_parser("pareto", help="a front of accuracy against energy", description=PARETO))
    _evaluate(commands.add_parser("evaluate", help="price a design", description=EVALUATE))
    _trace(commands.add_parser("trace", help="list the layers of a network", description=TRACE))
    _machines(commands.add_parser("machines", help="list machines, or show one", description=MACHINES))
    _map(commands.add_parser("map", help="best mapping of every layer, with its proof", description=MAP))
    _size(commands.add_parser("size", help="sizes of a chip for one or several networks", description=SIZE))
    _validate(commands.add_parser("validate", help="published numbers beside the model's", description=VALIDATE))
    _export(commands.add_parser("export", help="mappings as files of another tool", description=EXPORT))
    _report(commands.add_parser("report", help="print the tables of a finished run", description=REPORT))
    return parser


OPTIMIZE = """Trains the float network, the 16-bit, uniform and pruned references and the joint design, and writes
result.json, layers.csv, design.json, weights and pictures. Without options: the digits of scikit-learn on Envision."""
COMPRESS = """Trains the float network, prunes it in rounds, shares the weights that are left, and writes them
Huffman-coded into one file, as small as the validation accuracy allows. The file is read back before it is measured."""
PARETO = """Runs one joint design for every energy budget and seed with one compiled step, prints and draws the front of
validation accuracy against energy with its hypervolume, and writes each member as `optimize` writes a run
(members/NAME). Prints the memory it will take before it starts. A member that diverges is marked and stops no other;
exit code 1 when no member has a design."""
EVALUATE = "Prices the 16-bit design of a network, every word dense, or the design in a file with its densities."
TRACE = "Prints the multiply-accumulate layers of a network with loop bounds, MACs and weights."
MACHINES = """Lists the machines that come with the package with node, peak throughput and source, shows each number of
one with unit, interval and source, checks one, or prints what a file may say (docs/machine_files.md)."""
CHECK = """Holds a machine against laws that any chip obeys: more bits, MACs, supply or non-zero data never cost less,
prices scale with the energies and not with the units of the file, legal designs exist, every knob and energy has a
gradient. Exit code 1 when one is broken."""
MAP = """Searches loop order, uneven level cuts and unrolling of every layer of a network on a memory hierarchy, without
any training, and prints the cost of the best, the proven bound, the gap and the size of the space. Layers come from
--network, --model or --mapping."""
SIZE = """Chooses array sides, memory sizes and port widths that a machine file leaves free, by gradient together with
the tilings of the networks that the chip runs, within budgets of area and latency and without any training; then snaps
them to what can be built, maps every layer exactly, and moves single numbers while that helps. Exit code 1 when a
budget is broken."""
VALIDATE = """Without FILE: published figures of Envision, a 40 nm multiplier and Eyeriss beside the model's. With FILE:
each case of a golden file of ZigZag or Timeloop, expected, ours and relative error. Exit code 1 when one is out of
tolerance."""
EXPORT = """Writes accelerator, workload and mapping files of another tool and a script that replays them there;
`cooptim validate --with` replays them and compares. FILE is what `cooptim map --out` wrote, or a golden file."""
INTEGER = """Writes the final network of a run as integer.json and integer.npz: integer weights, accumulators and
fixed-point requantization, with normalizations folded in; `cooptim.integer` runs it with numpy alone. Prints the
accuracy of the float function and of the integers on the test set. --model, --data, --series, --machine, --exits and
--low-rank are those of the run."""
REPORT = "Prints the tables of a directory that `cooptim optimize --out` or `cooptim pareto --out` wrote."


def _model(parser: argparse.ArgumentParser, default: str | None = DEFAULT_MODEL) -> None:
    parser.add_argument(
        "--model", default=default, metavar="MODULE:FACTORY",
        help="factory(rngs) returns a Flax NNX module or a pair (params, apply); "
        + ("default %(default)s" if default else "instead of --network"),
    )  # fmt: skip
    parser.add_argument(
        "--data", default=None, help="'digits' (default), an .npz with x_train, y_train, x_test, y_test (and x_val, "
        "y_val), images or rows of tokens, a directory of IDX files, or CIFAR-10's binary version (folder or "
        "cifar-10-binary.tar.gz)",
    )  # fmt: skip
    parser.add_argument(
        "--series", action="store_true", help="inputs of three axes in --data's .npz are [n, step, feature], not "
        "images [n, y, x], to which a channel axis is added",
    )  # fmt: skip


def _rewrites(parser: argparse.ArgumentParser) -> None:
    """What is done to the traced network before anything else; in `pareto`, too, where each member has it."""
    parser.add_argument(
        "--exits", action="append", metavar="LAYER|TAG", help="an early exit behind this layer or tagged tensor; "
        "repeat for more. Its confidence threshold is learned, its head is priced",
    )  # fmt: skip
    parser.add_argument(
        "--exit-grid", type=int, metavar="CELLS", help="cells an axis over which a head averages; default 4"
    )
    parser.add_argument(
        "--low-rank", action="append", metavar="LAYER=RANK", help="split this layer in two of RANK components; repeat "
        "for more",
    )  # fmt: skip


def _input_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-shape", metavar="8x8x1", help="shape of one input, instead of --data; 128:int32 is a row of tokens"
    )


def _machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--machine", default="envision", help="name or YAML file; default %(default)s")


def _optimize(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _rewrites(parser)
    _machine(parser)
    parser.add_argument(
        "--energy",
        metavar="50nJ",
        help=f"energy per inference, or a share of the 16-bit reference such as 1/40; default 1/{DEFAULT_RATIO:g}",
    )
    _limits(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights and batches (splits are fixed); default %(default)s"
    )
    parser.add_argument("--out", default="runs/demo", help="directory of the run; default %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    _lengths(parser)
    parser.add_argument(
        "--distill", type=float, default=0.0, metavar="SHARE", help="share of the loss of every design, uniform ones "
        "too, that is cross-entropy to the float network's softened outputs; default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--lean", type=int, default=0, metavar="ROUNDS", help="take dead channels out of the joint network, then "
        "descend so many times for 0.7 of its energy, dead channels free of charge; default %(default)s",
    )  # fmt: skip


def _limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency", metavar="2ms", help="deadline; default: the latency of the 16-bit reference")
    parser.add_argument("--area", metavar="2mm2", help="silicon; matters where the machine frees a size")
    parser.add_argument(
        "--drop",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="validation accuracy that may be lost; default %(default)s",
    )


def _lengths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--augment", choices=("none", "crop_flip"), default="none", help="what training does to images: pad by 4, cut "
        "at random and mirror; default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--quantizer", default="step_range", metavar="NAME", help="step_range (widths learned), blend (learned), lsq, "
        "pact, dorefa, ternary, xnor, binary, codebook (inputs' learned; for machines with shared_weights, such as "
        "eie); default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--label-bits", type=int, metavar="BITS", help="of --quantizer codebook: a table of 2^BITS values a layer, 1 "
        f"to 8; default {DEFAULT_LABEL_BITS}",
    )  # fmt: skip
    parser.add_argument("--per-channel", action="store_true", help="a step and range for each output channel")
    parser.add_argument("--pattern", metavar="N:M", help="keep the N largest of each M weights, such as 2:4")
    parser.add_argument(
        "--errors", choices=("none", "weights", "inputs", "accumulators", "memory", "all"), default="none",
        help="what goes wrong below the safe supply of a machine that states its rates, in training and in what is "
        "measured, so that the supply is learned against accuracy; default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--error-map", choices=("random", "fixed"), default="random", help="another chip at each step and each draw, "
        "or one chip whose stuck cells stay; default %(default)s",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="steps of float training and of each descent")
    parser.add_argument(
        "--finetune", type=int, metavar="STEPS", help="steps of each round of fine-tuning; default: a quarter of "
        "--steps, or by the data set. Designs near their bound gain from several thousand",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")


def _compress(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument(
        "--drop", type=float, default=0.5, metavar="POINTS", help="validation accuracy that may be lost; default "
        "%(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--label-bits", type=int, default=3, metavar="BITS", help="2^BITS values in each layer; default %(default)s"
    )
    parser.add_argument("--sparsity", type=float, action="append", metavar="SHARE", help="of a round of pruning; "
        "several, rising; default: eight rounds from 0.5 to 0.96",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches; default %(default)s")
    parser.add_argument("--steps", type=int, help="steps of float training; rounds take a quarter; default: by the set")
    parser.add_argument("--out", default="network.czf", metavar="FILE", help="file to write; default %(default)s")


def _pareto(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _rewrites(parser)
    _machine(parser)
    parser.set_defaults(default_ratio=DEFAULT_RATIOS)
    parser.add_argument(
        "--energy", metavar="100nJ..500nJ:8", help="energies per inference: a range and how many in equal ratios, or a "
        "list such as 100nJ,200nJ",
    )  # fmt: skip
    parser.add_argument(
        "--ratio", metavar="20,25,30", help="instead: times below the 16-bit reference, a list or a range; default "
        f"{DEFAULT_RATIOS}",
    )  # fmt: skip
    _limits(parser)
    parser.add_argument(
        "--seeds", default="0", metavar="0..4", help="of weights and batches, a list or a range; default %(default)s"
    )
    parser.add_argument(
        "--floor", type=float, metavar="POINTS", help="accuracy of the hypervolume's reference point, below the float "
        "network; default: chance",
    )  # fmt: skip
    parser.add_argument(
        "--together", type=int, metavar="N", help="members in one call of the step; default 1 on a CPU, where that is "
        "cheapest, else all",
    )  # fmt: skip
    parser.add_argument("--out", default="runs/pareto", help="directory of the sweep; default %(default)s")
    parser.add_argument(
        "--resume", action="store_true", help="go on from what is in --out; budgets and seeds may be added"
    )
    parser.add_argument(
        "--member", action="append", metavar="NAME", help="go on with this member alone (repeat for more); a diverged "
        "one is landed at its last finite state",
    )  # fmt: skip
    parser.add_argument("--halt", action="store_true", help="land --member where its checkpoint stands")
    _lengths(parser)
    parser.set_defaults(distill=0.0)  # members of a sweep have no teacher


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _rewrites(parser)
    _machine(parser)
    _input_shape(parser)
    parser.add_argument("--design", help="design.json of a run; default: 16 bit, nominal clock and supply")
    parser.add_argument("--period", metavar="1ms", help="time from one inference to the next; default: the latency")
    parser.add_argument(
        "--intervals", action="store_true", help="also over the intervals of every assumption of the machine file: "
        "median, 5 to 95 %%, what matters most, and whether a ranking survives",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=300, help="draws of --intervals; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the draws; default %(default)s")
    parser.add_argument(
        "--against", metavar="DESIGN|MACHINE", help="design.json on the same machine, or another machine; default: the "
        "16-bit design where --design is given",
    )  # fmt: skip


def _trace(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _rewrites(parser)
    _input_shape(parser)


def _machines(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="show NAME | check NAME | schema")
    show = actions.add_parser("show", help="every number of a machine", description=MACHINES)
    check = actions.add_parser("check", help="hold a machine file against the laws", description=CHECK)
    for action in (show, check):
        action.add_argument("name", metavar="NAME|YAML", help="name or YAML file")
    actions.add_parser("schema", help="what a machine file may say, as Markdown", description=MACHINES)


def _bits(parser: argparse.ArgumentParser) -> None:
    for name, bits, what in (("weight", 8, "weights"), ("input", 8, "inputs"), ("psum", 24, "partial sums"),
                             ("output", 8, "outputs")):  # fmt: skip
        parser.add_argument(f"--{name}-bits", type=float, metavar="BITS", help=f"of {what}; default {bits}")


def _size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network", action="append", metavar="NAME|CSV", help="published network or table of layers; several: one "
        "chip for all; default resnet18",
    )  # fmt: skip
    _model(parser, default=None)
    _input_shape(parser)
    parser.add_argument(
        "--machine", default="edge_45nm", metavar="NAME|YAML", help="hierarchy whose file frees numbers (min and max); "
        "default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--objective", choices=("energy", "edp", "latency"), default="edp", help="of one inference, leakage included; "
        "default %(default)s",
    )  # fmt: skip
    parser.add_argument("--area", metavar="2mm2", help="silicon that may be spent; default: no limit")
    parser.add_argument("--latency", metavar="5ms", help="of one inference of each network; default: no limit")
    parser.add_argument(
        "--combine", choices=("sum", "worst"), default="sum", help="several networks: added up with their weights, or "
        "the worst weighted one; default %(default)s",
    )  # fmt: skip
    parser.add_argument("--weight", action="append", metavar="NETWORK=2", help="of a network; default 1")
    _bits(parser)
    for name, default, what in (
        ("starts", 8, "random starts of the descent"),
        ("steps", 400, "steps of each"),
        ("sweeps", 4, "rounds of single moves over all numbers"),
        ("effort", 1, "multiplies the unrollings searched for each layer"),
        ("seed", 0, "of the starts"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what}; default %(default)s")
    parser.add_argument("--out", metavar="DIR", help="write DIR/chip.yaml, chip.json and the mappings of each network")


def _map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", metavar="NAME|CSV", help="published network or table of layers; default resnet18")
    _model(parser, default=None)
    _input_shape(parser)
    parser.add_argument(
        "--mapping", metavar="FILE", help="a mapping.json, as --out wrote it or you changed it: price it beside the "
        "best; it names layers, machine and bits itself",
    )  # fmt: skip
    parser.add_argument(
        "--machine", metavar="NAME|YAML", help="memory hierarchy (also ZigZag's YAML); default tpu_like"
    )
    parser.add_argument(
        "--objective", choices=("energy", "edp"),
        help="energy of each layer, or energy x cycles of the whole network; default energy",
    )  # fmt: skip
    parser.add_argument(
        "--rules", choices=("hardware", "zigzag"), help="conventions of counting words; default hardware"
    )
    _bits(parser)
    parser.add_argument(
        "--residency", nargs="?", const="beside", choices=("beside", "joint"), help="also what stays on chip between "
        "layers and inferences: beside the chosen mappings, or chosen together with them (slower)",
    )  # fmt: skip
    parser.add_argument(
        "--frontier", action="store_true", help="also how many even mappings each layer has, and how many compete"
    )
    parser.add_argument("--out", metavar="DIR", help="write the best mappings to DIR/mapping.json")


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="golden file; with --with also mapping.json, or a folder of `export`"
    )
    parser.add_argument(
        "--machine", help="name of a chip to hold against its own figures alone, or a YAML file, against Envision's"
    )
    parser.add_argument("--claims", action="store_true", help="published claims of other systems that are predicted")
    parser.add_argument("--verbose", action="store_true", help="list every compared quantity")
    parser.add_argument(
        "--with", dest="tool", choices=("zigzag",), help="replay the mappings of FILE in this tool, and compare"
    )
    parser.add_argument("--python", metavar="PATH", help="the Python that has the tool; default: this one")


def _export(parser: argparse.ArgumentParser) -> None:
    tools = parser.add_subparsers(dest="target", required=True, metavar="TOOL")
    zigzag = tools.add_parser("zigzag", help="for zigzag-dse 3.9.1", description=EXPORT)
    zigzag.add_argument("file", metavar="FILE", help="mapping.json, or a golden file of ZigZag")
    zigzag.add_argument(
        "--case", metavar="ID", help="one layer of mapping.json, or one case of a golden file; default: all"
    )
    zigzag.add_argument("--out", default="zigzag", metavar="DIR", help="folder to write; default %(default)s")

    integer = tools.add_parser("integer", help="a finished run's network in pure integers", description=INTEGER)
    integer.add_argument("directory", metavar="RUN_DIR", help="the --out of a run")
    _model(integer)
    _rewrites(integer)
    _machine(integer)
    integer.add_argument("--out", default="integer", metavar="DIR", help="folder to write; default %(default)s")
    integer.add_argument(
        "--input-range", type=float, metavar="MAX", help="largest magnitude of x; where x is centred in the network"
    )


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", help="the --out of a run or of a sweep")
