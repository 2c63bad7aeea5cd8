"""A fitted lens: one linear map per state of the stream, which carries it to the last block's space; there it is read.

`lens of block l: softmax(ln_final(x A_l + b_l) @ W_U)`, the linear shortcut of Din et al. (2023). What the last block
puts out is read as it is, so that there the plain and the fitted lens agree. A lens belongs to the model whose weights
it was fitted to, and a map to the state that it was fitted to: nothing is read through another's. Contributions never
go through a fitted lens. How one is made: `visit.lenses.fit_linear`; why one may believe it: `visit.lenses.trust`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.cache import Store, cache_folder, write_whole
from visit.errors import VisitError, check_kind
from visit.models.fingerprint import fingerprint
from visit.models.model import Model

FORMAT = "visit lens 1"
REPORT_COLUMNS = ("kl_plain", "kl", "top1_plain", "top1")
LITTLE = 0.3  # held-out top-1 agreement below which a block's lens shows what any text leads to expect


@dataclass(frozen=True, eq=False)
class Lens:
    """Maps of a model's states to its last block's space.

    `sites`: the states that have a map, as (name, layer): ("resid_pre", 0) is the embedding, ("resid_mid", l) and
    ("resid_post", l) lie in and behind block l. `meta`: model, revision, fingerprint, tokens, seed, text, versions.
    `habit`: the mean probability of every word at a block over the held-out text: what any text leads to expect there.
    `report`: a row per block: `layer`, `kl_plain`, `kl` (bits, of the model's final prediction from the plain and the
    fitted lens), `top1_plain`, `top1` (share of positions with the final top word), over text not used in the fit.
    """

    sites: tuple[tuple[str, int], ...]
    maps: Float[Tensor, "site d_model d_model"]
    bias: Float[Tensor, "site d_model"]
    held_out: Int[Tensor, "row pos"]  # ids of the text that the report is of; −1 behind a row's end
    habit: Float[Tensor, "layer d_vocab"]
    meta: dict[str, Any]
    report: pd.DataFrame

    def carry(self, x: Float[Tensor, "n d_model"], layer: int, site: str = "resid_post") -> Float[Tensor, "n d_model"]:
        """The state as it would stand behind the last block. Raises `VisitError` for a state that has no map."""
        place = self._place(site, layer)
        if place is None:
            return x
        return torch.addmm(self.bias[place].to(x), x, self.maps[place].to(x))

    def carry_part(self, x: Float[Tensor, "n d_model"], layer: int) -> Float[Tensor, "n d_model"]:
        """What a part of the stream after a block becomes behind the last one: the linear part alone, `x @ A`.

        Linear in x: the parts of a state, carried one by one, and the block's bias add up to the state carried.
        """
        place = self._place("resid_post", layer)
        return x if place is None else x @ self.maps[place].to(x)

    def has(self, site: str, layer: int) -> bool:
        """Whether this state has a map, or needs none; the others are read plainly."""
        site, layer = self._same(site, layer)
        return (site, layer) in self._places or self._last(site, layer)

    def _place(self, site: str, layer: int) -> int | None:
        site, layer = self._same(site, layer)
        if (site, layer) in self._places:
            return self._places[site, layer]
        if self._last(site, layer):
            return None
        raise VisitError(f"This lens has no map for {site} of layer {layer}; read it plainly (lens=None).")

    @cached_property
    def _places(self) -> dict[tuple[str, int], int]:
        return {site: place for place, site in enumerate(self.sites)}

    def _last(self, site: str, layer: int) -> bool:
        return site == "resid_post" and layer == self.meta["n_layers"] - 1

    @staticmethod
    def _same(site: str, layer: int) -> tuple[str, int]:
        """What enters a block is what the one before it put out."""
        return ("resid_post", layer - 1) if site == "resid_pre" and layer > 0 else (site, layer)

    @property
    def name(self) -> str:
        """What a heading says: "fitted on 8,000 tokens that the model wrote"."""
        of = f"of {self.meta['text']}" if self.meta.get("text") else "that the model wrote"
        return f"fitted on {self.meta['tokens']:,} tokens {of}"

    @cached_property
    def label(self) -> str:
        """What tells this lens from every other one of its model: its name and a mark of its maps."""
        mark = hashlib.sha256()
        for part in (self.maps, self.bias):
            mark.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return f"{self.name}, seed {self.meta['seed']}, maps {mark.hexdigest()[:8]}"

    @property
    def about(self) -> dict[str, Any]:
        """What made it, for the provenance of what is read through it."""
        return {"name": self.name, **{key: self.meta[key] for key in ("fingerprint", "tokens", "seed", "text")}}

    @cached_property
    def readable_from(self) -> int:
        """The first block from which on the lens names the final word often enough to say more than habit."""
        return first_from(self.report, "top1", LITTLE)

    @cached_property
    def plain_readable_from(self) -> int:
        """The same of the plain lens: before it, it reads little in this model."""
        return first_from(self.report, "top1_plain", LITTLE)

    @cached_property
    def plain_from(self) -> int:
        """The first block from which on the plain lens's top word is the final one in half of the positions."""
        return first_from(self.report, "top1_plain", 0.5)

    def check(self, model: Model) -> Lens:
        """This lens, if it was fitted to this very model. Raises `VisitError` with both names otherwise."""
        if self.meta["fingerprint"] != fingerprint(model):
            raise VisitError(
                f"This lens was fitted to {self.meta['model']} with other weights than those of {model.name}. A lens "
                "reads only the model that it was fitted to: fit one (visit.fit_lens, or `python -m visit lens fit`)."
            )
        return self

    def controls(self, model: Model, prompts: Sequence[str]) -> pd.DataFrame:
        """The controls over prompts that the model answers, a row per block: `visit.lenses.trust.control_table`."""
        from visit.lenses.trust import control_table

        return control_table(model, self.check(model), prompts)

    def save(self, path: str | Path) -> Path:
        """Write the lens as safetensors: maps, biases, held-out ids, report, and in the header what made it."""
        from safetensors.torch import save

        path = Path(path)
        tensors = {"maps": self.maps, "bias": self.bias, "held_out": self.held_out, "habit": self.habit}
        tensors |= {f"report.{name}": torch.tensor(self.report[name].to_numpy()) for name in REPORT_COLUMNS}
        header = {"format": FORMAT, "sites": [list(site) for site in self.sites], "meta": self.meta}
        packed = save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, {"visit": json.dumps(header)})
        try:
            write_whole(path, lambda file: file.write(packed))
        except OSError as problem:
            raise VisitError(f"The lens cannot be written to '{path}': {problem.strerror}.") from problem
        return path


def first_from(report: pd.DataFrame, column: str, least: float) -> int:
    """The first layer from which on `column` stays at `least` or above; the number of layers where none does."""
    below = report.loc[report[column] < least, "layer"]
    return int(below.max()) + 1 if len(below) else 0


def load_lens(path: str | Path) -> Lens:
    """Read a lens that `lens.save` wrote. Nothing in the file is executed.

    Raises `VisitError` for what is no lens file, for shapes that do not fit each other, and for numbers that are none.
    """
    from safetensors import SafetensorError, safe_open

    check_kind("The path of a lens", path, (str, Path), "a text or a pathlib.Path")
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["visit"])
            if header["format"] != FORMAT:
                raise VisitError(f"'{path.name}' is of another version: it says {header['format']!r}, not {FORMAT!r}.")
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        sites = tuple((str(name), int(layer)) for name, layer in header["sites"])
        report = pd.DataFrame({name: found[f"report.{name}"].double().numpy() for name in REPORT_COLUMNS})
        report.insert(0, "layer", range(len(report)))
        lens = Lens(sites, found["maps"], found["bias"], found["held_out"], found["habit"], header["meta"], report)
        _sound(lens)
    except FileNotFoundError as problem:
        raise VisitError(f"There is no file '{path}'.") from problem
    except OSError as problem:
        raise VisitError(f"'{path}' cannot be read: {problem.strerror or problem}.") from problem
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        raise VisitError(
            f"'{path.name}' is no lens file: give one that lens.save or `lens fit --out` wrote."
        ) from problem
    return lens


def _sound(lens: Lens) -> None:
    """Raises `VisitError` where the parts of a file do not fit together."""
    d, layers = int(lens.meta["d_model"]), int(lens.meta["n_layers"])
    if not isinstance(lens.name, str) or not {"model", "fingerprint", "seed"} <= set(lens.meta):
        raise KeyError("what made the lens")
    wanted = {
        "maps": (len(lens.sites), d, d),
        "bias": (len(lens.sites), d),
        "habit": (layers, int(lens.meta["d_vocab"])),
    }
    for name, shape in wanted.items():
        part = getattr(lens, name)
        if tuple(part.shape) != shape:
            raise VisitError(f"The lens file's {name} must be {list(shape)}; got {list(part.shape)}.")
        if not part.is_floating_point() or not bool(part.isfinite().all()):
            raise VisitError(f"The lens file's {name} hold values that are no numbers.")
    if lens.held_out.dim() != 2 or lens.held_out.is_floating_point() or len(lens.report) != layers:
        raise VisitError("The lens file's report does not fit its maps.")
    if len(set(lens.sites)) != len(lens.sites) or any(not 0 <= layer < layers for _, layer in lens.sites):
        raise VisitError(f"The lens file's maps name states of other layers than 0 to {layers - 1}.")


def lens_path(model: Model) -> Path:
    """Where the lens that was fitted to this model lies for all who use this cache folder."""
    return cache_folder() / "lenses" / f"{fingerprint(model)}.safetensors"


@dataclass(frozen=True, eq=False)
class Found:
    """What there is of a lens fitted to a model. `key` tells it from every other (empty: there is none).

    `problem`: why a file that is there is not used. `kept`: it lies in the cache folder; else this process holds it.
    """

    key: str = ""
    lens: Lens | None = None
    problem: str = ""
    kept: bool = True


_HELD: dict[str, Lens] = {}  # by fingerprint: fitted in this process, where the cache folder cannot be written
_LOADED = Store(256 << 20)  # by path and what tells a file that was changed


def keep_lens(model: Model, lens: Lens) -> None:
    """Put a lens where all who use this cache folder find it; where that cannot be, this process holds it."""
    try:
        lens.save(lens_path(model))
    except VisitError:
        _HELD[fingerprint(model)] = lens


def find_lens(model: Model) -> Found:
    """The lens fitted to a model in the cache folder; a file is read once, until it changes."""
    path, held = lens_path(model), _HELD.get(fingerprint(model))
    found = Found() if held is None else Found(f"{path.stem}-held", checked(model, held), kept=False)
    try:
        about = path.stat()
    except OSError:
        return found
    key = f"{path.stem}-{about.st_mtime_ns}-{about.st_size}"
    there: Found = _LOADED.get((str(path), key, str(model.device)), lambda: _in_file(model, path, key))
    return there if there.lens is not None or held is None else found


def _in_file(model: Model, path: Path, key: str) -> Found:
    try:
        return Found(key, checked(model, load_lens(path)))
    except VisitError as problem:
        return Found(problem=str(problem))


def fitted_lens(model: Model) -> Lens | None:
    """The lens fitted to a model; None where there is none, or a damaged file (it can be made again)."""
    return find_lens(model).lens


def through(lens: Lens | None, x: Tensor, site: str, layer: int) -> Tensor:
    """The state as a lens is given it: carried by its map, or as it is for the plain lens."""
    return x if lens is None else lens.carry(x, layer, site)


def checked(model: Model, lens: Lens | None) -> Lens | None:
    """A lens that may be used with this model, its maps where the model is."""
    if lens is None:
        return None
    check_kind("lens", lens, Lens, "a lens of visit.fit_lens or visit.load_lens, or None for the plain one")
    lens.check(model)
    if lens.maps.device == model.device:
        return lens
    return replace(lens, maps=lens.maps.to(model.device), bias=lens.bias.to(model.device))


def all_sites(model: Model) -> Iterable[tuple[str, int]]:
    """The states that a lens has maps for: the embedding, and what lies in and behind every block but the last."""
    yield "resid_pre", 0
    for layer in range(model.n_layers):
        if not model.family.parallel:
            yield "resid_mid", layer
        if layer < model.n_layers - 1:
            yield "resid_post", layer


def compact(maps: Tensor) -> Tensor:
    """Half the size where that loses nothing but digits: what is kept is what is used, on disk and in memory."""
    half = maps.to(torch.float16)
    return half if bool(half.isfinite().all()) else maps.to(torch.float32)
