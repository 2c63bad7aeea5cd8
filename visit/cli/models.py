"""`python -m visit models`: what is on this machine, what can be fetched, and fetching it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visit.cli.options import TABLES, check_out, out_options, wrote
from visit.errors import VisitError
from visit.models.catalog import LISTED, MINI, MINI_FOLDER, title
from visit.models.checkpoint import local_path
from visit.text.numbers import percent, size_text

if TYPE_CHECKING:
    from visit.models.download import Download


def add(commands: Any) -> None:
    """The command's options."""
    models = commands.add_parser("models", help="what is here, what can be fetched", description=run.__doc__)
    models.set_defaults(run=run)
    out_options(models, TABLES)
    fetch = models.add_subparsers(metavar="fetch NAME", parser_class=type(models)).add_parser(
        "fetch", help="fetch a model onto this machine", description=run_fetch.__doc__
    )
    fetch.set_defaults(run=run_fetch)
    fetch.add_argument("model", metavar="NAME", help="a listed model, as smollm2, or a hub id")


def run(options: argparse.Namespace) -> int:
    """List the models that VISIT offers: whether they are here, their download, and the memory they take."""
    import pandas as pd

    from visit.cache import cache_folder
    from visit.files.tables import to_text
    from visit.models.catalog import need

    check_out(options.out, TABLES)
    found = {name: _where(name) for name in LISTED}
    table = pd.DataFrame(
        [(name, found[name] is not None, listed.download, need(name), listed.parameters, str(found[name] or ""))
         for name, listed in LISTED.items()],
        columns=["name", "here", "download", "memory", "parameters", "path"],
    )  # fmt: skip
    if wrote(options, {"cache": str(cache_folder())}, {"models": table}):
        return 0
    table["here"] = ["yes" if here else "no" for here in table["here"]]
    table["download"] = [size_text(size) if size else "embedded" for size in table["download"]]
    table["memory"] = [size_text(size) for size in table["memory"]]
    print(to_text(table, ["name", "here", "download", "memory"]))
    print("\nMemory: the weights in float32 and a projection to the vocabulary.")
    print("Fetch one: python -m visit models fetch NAME. Any other hub id, folder or .gguf file works, too.")
    for name, where in found.items():
        if where is not None and name != MINI:
            print(f"{name}: {where}")
    return 0


def run_fetch(options: argparse.Namespace) -> int:
    """Fetch a model, with a bar; one that is here already is left as it is. Ctrl-C stops it."""
    from visit.models.download import DOWNLOADS

    name = options.model
    if (where := _where(name)) is not None:
        print(f"{title(name)} is here: {where}")
        return 0
    download = DOWNLOADS.start(name)
    bar = _Bar()
    try:
        while not download.ended.wait(0.2):
            bar.show(download)
    except KeyboardInterrupt:
        download.cancel()
    bar.close()
    if download.state == "cancelled":
        print(f"visit: The download of {name!r} was stopped.", file=sys.stderr)
        return 130
    if download.state == "failed":
        raise VisitError(download.error)
    print(f"{title(name)} is here now: {_where(name)}")
    return 0


def _where(name: str) -> Path | None:
    """Where a model lies on this machine; None where it has to be fetched first."""
    from visit.models import hub, wheels

    if name == MINI:
        return MINI_FOLDER
    return wheels.find(name) or local_path(name) or hub.cached_folder(name)


class _Bar:
    """How far a download is, on standard error: one line that changes in a terminal, a line every tenth elsewhere."""

    def __init__(self) -> None:
        self.live, self.said, self.width = sys.stderr.isatty(), 0, 0

    def show(self, download: Download) -> None:
        if not download.total:
            return
        share = download.done / download.total
        text = f"{percent(share):>6}  {size_text(download.done)} of {size_text(download.total)}"
        text += f"  {size_text(download.rate)} a second" if download.rate > 0 else ""
        text = download.doing or text
        if self.live:
            filled = round(24 * share)
            line = f"{'#' * filled}{'.' * (24 - filled)} {text}"
            print(f"\r{line:<{self.width}}", end="", file=sys.stderr, flush=True)
            self.width = len(line)
        elif int(share * 10) > self.said:
            self.said = int(share * 10)
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.live and self.width:
            print(file=sys.stderr)
