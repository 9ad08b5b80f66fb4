"""The published claims that are classed as predicted: what the model says, signed errors, what is not modelled yet."""

import collections
import csv
import json
import pathlib
import sys

import jax

from cooptim.validate.claims import CLASSES, SHARE_ASKED, published_claims
from cooptim.validate.predictions import not_yet_modelled, predicted_rows
from cooptim.validate.row import Row

HERE = pathlib.Path(__file__).parent


def main() -> int:
    """Prints the table, writes claims.csv and result.json; 1 when fewer of the predicted claims hold than asked."""
    jax.config.update("jax_enable_x64", True)
    rows, later = predicted_rows(), not_yet_modelled()
    verdicts = {True: "inside", False: "outside", None: "uninformative"}
    table = [
        {
            "claim": row.name, "published": figure(row), "unit": row.unit, "relation": row.relation,
            "model": f"{row.model:.4g}", "low": f"{row.low:.4g}", "high": f"{row.high:.4g}",
            "error_percent": f"{100 * row.error:+.1f}", "tolerance_percent": f"{100 * row.tolerance:g}",
            "verdict": verdicts[row.holds], "from": row.note,
        }
        for row in rows
    ]  # fmt: skip
    table += [
        {"claim": f"{one.system}: {one.claim}", "published": one.value, "unit": one.unit, "verdict": "not yet modelled",
         "tolerance_percent": f"{100 * one.tolerance:g}", "from": one.reason}
        for one in later
    ]  # fmt: skip
    with (HERE / "claims.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    kinds = collections.Counter(one.kind for one in published_claims())
    found = collections.Counter(row["verdict"] for row in table)
    run = len(rows)
    result = {
        "classes": {kind: kinds[kind] for kind in CLASSES},
        "verdicts": dict(found),
        "inside_of_run": found["inside"] / run,
        "inside_of_predicted": found["inside"] / len(table),
        "asked": SHARE_ASKED,
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    for row in table:
        cells = [f"{row['claim']:80s}", f"{row['published']!s:>14s}", f"{row.get('model', ''):>8s}"]
        print(*cells, f"{row.get('error_percent', ''):>7s}", row["verdict"])
    print(json.dumps(result, indent=1))
    return int(result["inside_of_predicted"] < SHARE_ASKED)


def figure(row: Row) -> str:
    """The published figure, or both ends of a published range."""
    return f"{row.published}" if row.published_high is None else f"{row.published}-{row.published_high}"


if __name__ == "__main__":
    sys.exit(main())
