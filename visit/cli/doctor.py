"""`python -m visit doctor`: is this model read exactly?"""

from __future__ import annotations

import argparse
from typing import Any

from visit.cli.options import TABLES, check_out, out_options, wrote


def add(commands: Any) -> None:
    """The command's options."""
    doctor = commands.add_parser("doctor", help="is this model read exactly?", description=run.__doc__)
    doctor.set_defaults(run=run)
    doctor.add_argument("model", metavar="MODEL", help="visit-mini, smollm2, a folder or .gguf file, or a hub id")
    doctor.add_argument("--revision", help="of a hub model")
    doctor.add_argument("--dtype", help="float64, float32, bfloat16 or float16")
    doctor.add_argument("--device", help="cpu, cuda, cuda:1, mps (Apple), or auto (spread over several by accelerate)")
    out_options(doctor, TABLES)


def run(options: argparse.Namespace) -> int:
    """Check that VISIT reads a model exactly, and on a GPU that it computes what the CPU computes.

    Exit status: 0 all identities hold, 1 one fails or the device computes wrongly, 2 not a model.
    """
    from visit.analyses.doctor import examine
    from visit.files.tables import to_text
    from visit.models.load import load_model

    check_out(options.out, TABLES)
    meta, tables = examine(load_model(options.model, options.revision, options.dtype, options.device))
    if not wrote(options, meta, tables):
        print(f"{meta['model']} {meta['revision']} ({meta['dtype']})\n\n{to_text(tables['model'])}\n")
        print(f"{to_text(tables['memory'])}\n")
        print(to_text(tables["ledger"], ["identity", "name", "max_rel_error", "tolerance", "holds"]))
        print("\nversions: " + ", ".join(f"{name} {number}" for name, number in meta["versions"].items()))
        print(f"\n{meta['verdict']}")
    return 0 if meta["ledger"]["holds"] and meta["device"]["holds"] else 1
