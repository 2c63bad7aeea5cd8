"""`python -m visit doctor`: is this model read exactly?"""

from __future__ import annotations

import argparse
from typing import Any

from visit.commands.options import TABLES, check_out, out_options, wrote


def add(commands: Any) -> None:
    """The command's options."""
    doctor = commands.add_parser("doctor", help="is this model read exactly?", description=run.__doc__)
    doctor.set_defaults(run=run)
    doctor.add_argument("model", metavar="MODEL", help="visit-mini, a folder, or a hub id")
    doctor.add_argument("--dtype", help="float64, float32, bfloat16 or float16")
    out_options(doctor, TABLES)


def run(options: argparse.Namespace) -> int:
    """Check that VISIT reads a model exactly. Exit status: 0 all identities hold, 1 one fails, 2 not a model."""
    from visit.doctor import examine
    from visit.model import load_model
    from visit.tables import to_text

    check_out(options.out, TABLES)
    meta, tables = examine(load_model(options.model, dtype=options.dtype))
    holds = meta["ledger"]["holds"]
    if not wrote(options, meta, tables):
        print(f"{meta['model']} {meta['revision']} ({meta['dtype']})\n\n{to_text(tables['model'])}\n")
        print(to_text(tables["ledger"], ["identity", "name", "max_rel_error", "tolerance", "holds"]))
        failed = ", ".join(str(i) for i in tables["ledger"].loc[~tables["ledger"]["holds"], "identity"])
        print(f"\n{'All identities hold.' if holds else f'Identities that fail: {failed}. Do not trust its numbers.'}")
    return 0 if holds else 1
