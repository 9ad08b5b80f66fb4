"""Replays exported mappings in ZigZag's cost model; needs zigzag-dse and six, and nothing else.

Usage: python replay.py [FOLDER ...]        default: the folder of this file

Each folder holds accelerator.yaml, workload.yaml and mapping.yaml, which ZigZag reads itself, and temporal.json: per
layer and operand the loops of each memory level, innermost first. ZigZag's own files cannot say that, so that mapping
is built here through its classes. Each layer is evaluated by CostModelEvaluation; what it answers, or why it does not,
and the CPU-seconds that this took, go into results.json beside the files. Exit code 3 when a module is missing.
"""

import json
import logging
import pathlib
import sys
import time
from typing import Any

MISSING = 3
FORMAT = "cooptim-zigzag-replay-1"
OPERANDS = ("W", "I", "O")
# Directions as ZigZag names them and as results.json does.
DIRECTIONS = {
    "rd_out_to_low": "read_to_low",
    "wr_in_by_low": "write_from_low",
    "rd_out_to_high": "read_to_high",
    "wr_in_by_high": "write_from_high",
}


def four(moved: Any) -> dict[str, float]:
    """One of ZigZag's four-way records as plain numbers."""
    return {DIRECTIONS[str(direction)]: float(value) for direction, value in moved.data.items()}


def level_results(cme: Any, operand: Any, m: int) -> dict[str, Any]:
    """What ZigZag says about one operand's level m."""
    from zigzag.mapping.data_movement import DataMoveAttr

    mapping, link = cme.mapping, cme.memory_operand_links.layer_to_mem_op(operand)
    moves = mapping.unit_mem_data_movement[operand][m]
    return {
        "memory": cme.accelerator.get_memory_level(link, m).name,
        "instances_used": mapping.spatial_mapping.unit_count[operand][m + 1],
        "tile_elements_per_instance": mapping.data_elem_per_level_unrolled[operand][m + 1],
        "tile_bits_per_instance": mapping.data_bit_per_level_unrolled[operand][m + 1],
        "accesses": four(cme.memory_word_access[operand][m]),
        "elements_per_period": four(moves.get_attribute(DataMoveAttr.DATA_TRANS_AMOUNT_PER_PERIOD)),
        "period_cycles": four(moves.get_attribute(DataMoveAttr.DATA_TRANS_PERIOD)),
        "period_count": four(moves.get_attribute(DataMoveAttr.DATA_TRANS_PERIOD_COUNT)),
        "precision_bits": four(moves.get_attribute(DataMoveAttr.DATA_PRECISION)),
        "transfer_cycles_per_period": four(cme.real_data_trans_cycle[operand][m]),
        "allowed_cycles_per_period": four(cme.allowed_mem_update_cycle[operand][m]),
        "double_buffered": bool(cme.double_buffer_true[operand][m + 1]),
        "energy_pj": float(cme.mem_energy_breakdown[operand][m]),
    }


def results(cme: Any) -> dict[str, Any]:
    """What ZigZag answers for one layer, in the words of the format cooptim-zigzag-golden-1."""
    operands = {operand.name: operand for operand in cme.layer.layer_operands}
    levels = {
        name: [level_results(cme, operands[name], m) for m in range(cme.mapping.mem_level[operands[name]])]
        for name in OPERANDS
    }
    filled = {}
    for name in OPERANDS:
        for level, share in zip(levels[name], cme.mem_utili_shared[operands[name]], strict=True):
            filled[level["memory"]] = float(share)
    stalls = {
        f"{level.name}/{port}": float(stall)
        for level, ports in zip(cme.mem_level_list, cme.stall_slack_comb_collect, strict=True)
        for port, stall in ports.items()
    }
    return {
        "mac_count": float(cme.layer.total_mac_count),
        "mac_energy_pj": float(cme.mac_energy),
        "memory_energy_pj": float(cme.mem_energy),
        "energy_total_pj": float(cme.energy_total),
        "tensor_elements": {name: float(cme.layer.operand_size_elem[operands[name]]) for name in OPERANDS},
        "memory_utilization": filled,
        "levels": levels,
        "latency": {
            "ideal_cycles": float(cme.ideal_cycle),
            "temporal_cycles": float(cme.ideal_temporal_cycle),
            "stall_cycles": float(cme.stall_slack_comb),
            "onload_cycles": float(cme.data_onloading_cycle),
            "offload_cycles": float(cme.data_offloading_cycle),
            "drain_cycles": float(getattr(cme, "systolic_drain_cycle", 0)),
            "computation_cycles": float(cme.latency_total0),
            "total_cycles": float(cme.latency_total2),
            "stall_per_port": stalls,
        },
    }


def evaluate(accelerator: Any, layer: Any, temporal: dict[str, Any]) -> Any:
    """ZigZag's evaluation of one layer under the spatial mapping of its file and these temporal loops."""
    from zigzag.cost_model.cost_model import CostModelEvaluation
    from zigzag.datatypes import LayerDim
    from zigzag.mapping.temporal_mapping import TemporalMapping, TemporalMappingType
    from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
    from zigzag.stages.mapping.spatial_mapping_conversion import SpatialMappingConversionStage

    if layer.spatial_mapping.oa_dim_sizes is None:
        layer.spatial_mapping.initialize_oa_dims(accelerator.operational_array.dimension_sizes)
    conversion = SpatialMappingConversionStage([CostModelStage], accelerator=accelerator, layer=layer)
    spatial, spatial_int = conversion.convert_user_spatial_mapping(layer.spatial_mapping)
    loops = {
        operand: [[(LayerDim(dim), size) for dim, size in level] for level in temporal[operand.name]]
        for operand in layer.layer_operands
    }
    return CostModelEvaluation(
        accelerator=accelerator,
        layer=layer,
        spatial_mapping=spatial,
        spatial_mapping_int=spatial_int,
        temporal_mapping=TemporalMapping(loops, layer, TemporalMappingType.UNEVEN),
        access_same_data_considered_as_no_access=True,
    )


def load(folder: pathlib.Path) -> list[tuple[str, Any, Any, dict[str, Any]]]:
    """(name, ZigZag's accelerator, its layer, temporal loops) of each layer of a folder."""
    from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
    from zigzag.stages.parser.accelerator_parser import AcceleratorParserStage
    from zigzag.stages.parser.workload_parser import WorkloadParserStage

    accelerator = AcceleratorParserStage.parse_accelerator(str(folder / "accelerator.yaml"))
    stage = WorkloadParserStage(
        [CostModelStage], workload=str(folder / "workload.yaml"), mapping=str(folder / "mapping.yaml")
    )
    temporal = json.loads((folder / "temporal.json").read_text(encoding="utf-8"))["layers"]
    layers = sorted(stage.parse_workload().node_list, key=lambda layer: layer.id)
    return [(layer.name, accelerator, layer, temporal[layer.name]) for layer in layers]


def answer(accelerator: Any, layer: Any, temporal: dict[str, Any]) -> dict[str, Any]:
    """The results of one layer, or the reason why ZigZag stopped."""
    try:
        return results(evaluate(accelerator, layer, temporal))
    except Exception as error:  # ZigZag asserts here and there what its own mappings keep
        return {"refused": f"{type(error).__name__}: {error}"}


def main(argv: list[str]) -> int:
    """Replays folders; 0 when each has its results.json."""
    try:
        import zigzag.cost_model.cost_model  # noqa: F401
        import zigzag.stages.parser.workload_parser  # noqa: F401
    except ImportError as error:
        print(error.name or error, file=sys.stderr)
        return MISSING
    from importlib.metadata import version

    logging.disable(logging.WARNING)
    for place in argv or [str(pathlib.Path(__file__).parent)]:
        folder = pathlib.Path(place)
        layers = load(folder)
        start = time.process_time()
        answers = {name: answer(*case) for name, *case in layers}
        content = {
            "format": FORMAT,
            "zigzag_version": version("zigzag-dse"),
            "cpu_seconds": time.process_time() - start,
            "layers": answers,
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (folder / "results.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
