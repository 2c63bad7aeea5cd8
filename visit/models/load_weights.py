"""Reading the weights of a folder into a Hugging Face model, and judging what transformers says about it."""

from __future__ import annotations

import importlib.util
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import utils as hub_bars
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM
from transformers.utils import logging as hf_logging

from visit.errors import VisitError
from visit.text.numbers import size_text

ProgressCallback = Callable[[int, int], None]  # tensors read so far, of how many
_HOOK = threading.Lock()  # transformers has one hook for its progress bars, for the whole process
# buffers that older versions of transformers wrote beside the weights: masks and the frequencies of the rotation
_BUFFERS = re.compile(r"\.(attn|attention|self_attn|self_attention)\.((attention\.)?(bias|masked_bias)|.*inv_freq)$")


def read_weights(
    name: str, source: Path | Mapping[str, Any], config: Any, blocks: str, dtype: torch.dtype, where: str,
    report: ProgressCallback | None = None,
) -> Any:  # fmt: skip
    """The model with its weights in `dtype` on `where`, eager attention; no copy in another type is ever held whole.

    `source`: a folder with safetensors, or the weights by name, each read when `[...]` asks for it.
    `blocks`: the path of the model's blocks. Raises `VisitError` for weights that are missing, that contradict the
    config, or that would have to be kept off the devices.
    """
    try:
        with quiet(), _tensor_progress(report):
            # the automatic class insists on a folder; weights at hand go to the class that it would choose
            cls: Any = AutoModelForCausalLM if isinstance(source, Path) else MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            loaded: Any = cls.from_pretrained(
                str(source) if isinstance(source, Path) else None, config=config, dtype=dtype,
                attn_implementation="eager", use_safetensors=True,
                **({} if isinstance(source, Path) else {"state_dict": source}),
                output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True, trust_remote_code=False,
                **_placing(where),
            )  # fmt: skip
        hf, found = loaded
    except Exception as error:
        if where == "auto" and "offload" in str(error):
            raise VisitError(_kept_off(name)) from error
        raise VisitError(
            f"The weights of {name!r} cannot be read: {first_line(error)} VISIT reads safetensors and GGUF files only."
        ) from error
    _check_shapes(name, found["mismatched_keys"])
    _check_missing(name, sorted(found["missing_keys"]))
    _check_unexpected(name, sorted(found["unexpected_keys"]), blocks, config.num_hidden_layers)
    if any(p.device.type == "meta" for p in hf.parameters()):
        raise VisitError(_kept_off(name))
    return hf if where == "auto" else hf.to(where)


_SLACK = 0.1  # of the numbers in a checkpoint, which may be missing before transformers is asked what they are
_BESIDE = 1 << 30  # bytes of positions, masks and slopes that a model may make beside its weights


def check_claims(name: str, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a config that claims other sizes than the weights have, before any memory is taken for them.

    The model is built without memory (torch's device "meta") and laid beside `shapes`, the weights' own by their
    headers: transformers would first make what does not fit, at the config's size. Names that only its own tables
    know are left to it, as long as they are few.
    """
    if config.num_hidden_layers > len(shapes):
        raise VisitError(
            f"The config of {name!r} contradicts its weights: it describes a model of {config.num_hidden_layers:,} "
            f"layers, and there are {len(shapes):,} tensors. Use the config.json that was saved with these weights."
        )
    try:
        with quiet(), torch.device("meta"):
            cls: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            hf = cls(config)
    except Exception as error:
        raise VisitError(f"No model can be made of the config of {name!r}: {first_line(error)}") from error
    tables = sum(buffer.nelement() * buffer.element_size() for buffer in hf.buffers())
    if tables > _BESIDE:
        raise VisitError(
            f"The config of {name!r} asks for tables of {size_text(tables)} beside the weights (positions or masks). "
            "Use the config.json that was saved with these weights."
        )
    prefix = f"{hf.base_model_prefix}."
    wrong: list[Any] = []
    missing: dict[str, int] = {}
    left = dict(shapes)
    for key, parameter in hf.named_parameters():  # one that is tied to another stands here once
        there = next((k for k in (key, key.removeprefix(prefix), prefix + key) if k in left), None)
        stored = None if there is None else left.pop(there)
        if stored is None:
            missing[key] = parameter.nelement()
        elif sorted(stored) != sorted(parameter.shape):  # GGUF stores some of them turned
            wrong.append((key, stored, parameter.shape))
    _check_shapes(name, wrong)
    # under names of before: what is left over is enough for them
    if sum(missing.values()) > sum(map(math.prod, left.values())) + _SLACK * sum(map(math.prod, shapes.values())):
        _check_missing(name, sorted(missing))


def _placing(where: str) -> dict[str, Any]:
    """Weights go straight to their device where accelerate is there to do it; else over the CPU, in their type."""
    if where == "auto":
        return {"device_map": "auto"}
    if where != "cpu" and importlib.util.find_spec("accelerate"):
        return {"device_map": {"": where}}
    return {}


def _kept_off(name: str) -> str:
    return (
        f"{name!r} does not fit onto the devices: accelerate would keep some of its weights on the disk or off the GPU "
        "and bring them in one by one, where no exact reading of them is possible. Choose a smaller model, or "
        "dtype='bfloat16'."
    )


def _check_shapes(name: str, wrong: Any) -> None:
    if wrong:
        key, stored, expected = sorted(wrong, key=lambda row: row[0])[0]
        more = f" ({len(wrong)} tensors differ)" if len(wrong) > 1 else ""
        raise VisitError(
            f"The config of {name!r} contradicts its weights: {key} is {list(stored)} in the checkpoint, and by "
            f"config.json it would be {list(expected)}{more}. Use the config.json that was saved with these weights."
        )


def _check_missing(name: str, missing: list[str]) -> None:
    if missing:
        raise VisitError(
            f"The checkpoint {name!r} is incomplete: {len(missing)} of its model's weights are not in it "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}). Download or save it again."
        )


def _check_unexpected(name: str, unexpected: list[str], blocks: str, layers: int) -> None:
    """Weights of a block that the config has no place for: without them another model would be read."""
    inside = re.compile(rf"(^|\.){re.escape(blocks.split('.')[-1])}\.(\d+)\.")
    lost = [key for key in unexpected if inside.search(key) and not _BUFFERS.search(key)]
    if lost:
        raise VisitError(
            f"The config of {name!r} contradicts its weights: it describes a model of {layers} layers that has no "
            f"place for {lost[0]}{f' and {len(lost) - 1} more' if len(lost) > 1 else ''}. "
            "Use the config.json that was saved with these weights."
        )


class _Quiet:
    """No progress bars and no reports on standard error while anybody is inside: what they say is the process's own.

    Loading threads come and go in any order: the first in takes down what was set, the last out puts it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before: tuple[int, bool, bool] = (0, True, True)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                bars = hf_logging.is_progress_bar_enabled()
                self._before = hf_logging.get_verbosity(), bars, not hub_bars.are_progress_bars_disabled()
                hf_logging.disable_progress_bar()  # the hub's, too
                hf_logging.set_verbosity(hf_logging.CRITICAL)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._restore(*self._before)

    @staticmethod
    def _restore(verbosity: int, bars: bool, bars_of_hub: bool) -> None:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
        if bars_of_hub:
            hub_bars.enable_progress_bars()
        else:
            hub_bars.disable_progress_bars()


quiet = _Quiet()


@contextmanager
def _tensor_progress(report: ProgressCallback | None) -> Iterator[None]:
    """While it lasts, `report` is told of every tensor that this thread's transformers has put into its place."""
    if report is None:
        yield
        return
    told, thread = report, threading.get_ident()

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        bar = factory(*args, **options)
        if threading.get_ident() != thread or options.get("desc") != "Loading weights" or not args:
            return bar
        return _counted(bar, len(args[0]), told)

    with _HOOK:
        before = hf_logging.set_tqdm_hook(hook)
        try:
            yield
        finally:
            hf_logging.set_tqdm_hook(before)


def _counted(items: Any, total: int, report: ProgressCallback) -> Iterator[Any]:
    for done, item in enumerate(items):
        report(done, total)
        yield item
    report(total, total)


def first_line(error: BaseException) -> str:
    """What an error says first, as a sentence."""
    lines = str(error).split("\n")
    text = [line.strip() for line in lines if line.strip()] or [type(error).__name__]
    line = " ".join(text[:2]) if text[0].endswith(":") else text[0]
    return line if line.endswith(".") else line + "."
