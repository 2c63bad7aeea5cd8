"""The file of a recording (`.visit`): one zip of three members, there as a whole or not at all, and never trusted.

`recording.json` names format and version, and of the other two how long they are and their SHA-256 sums;
`content.json` holds all texts, and says which numbers belong to what; `numbers.safetensors` holds the numbers, a tensor
a column. No member holds code, and nothing is unpickled.

How a file is opened, in four steps; whatever is wrong is a `VisitError`, and nothing of the file is used then:
1. Its size, and the names, number, sizes and kind of its members are judged by the zip's own list.
2. `recording.json` says which format it is. A newer version is told as that, not as damage.
3. The others are unpacked, never beyond what was announced, and their lengths and sums are compared.
4. Both are parsed, unless they have more parts than a recording has: of 26 MB of brackets Python makes lists of
   700. Types of numbers that a recording does not write are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from visit.cache import Arrays, write_whole
from visit.errors import VisitError
from visit.text.strict_json import strict_json

RECORDING_FORMAT, RECORDING_VERSION = "visit-recording", 1
LARGEST_FILE = 64 << 20  # bytes
LARGEST_MEMBER = {"recording.json": 1 << 14, "content.json": 32 << 20, "numbers.safetensors": 96 << 20}
MOST_PACKED = 500  # times: what unpacks to more is made to fill a memory
_FREE = 1 << 20  # bytes that may be packed as closely as they like
_TYPES = ("float32", "float64", "int16", "int32", "int64", "uint8", "uint16")
_DEEPEST = 64  # levels of JSON
MOST_PARTS = 1 << 20  # of JSON; the recording of SmolLM2's opening has 31,000
_LONGEST_HEADER = 4 << 20  # bytes in which the numbers' names and lengths stand; that one has 35,000


def broken_file(why: str) -> VisitError:
    """What is said of a file that is no recording, or no longer the one that was saved."""
    return VisitError(f"This recording cannot be opened: {why}. Nothing of it was used; record the run again.")


def write_recording(path: Path | str, data: bytes) -> None:
    """Write a recording so that it is there as a whole or not at all: a file of this name stays until then."""
    path = Path(path)

    def put(file: Any) -> None:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

    if not path.absolute().parent.is_dir():
        raise VisitError(f"{str(path)!r} cannot be written: its folder does not exist. Make it, or choose another.")
    try:
        write_whole(path, put)
        path.chmod(0o644)  # it is made to be given away; a temporary file is for its owner alone
    except OSError as error:
        raise VisitError(
            f"{str(path)!r} cannot be written ({error.strerror or error}). A file that was there is as it was."
        ) from error


def packed_recording(content: dict[str, Any], arrays: Arrays) -> bytes:
    """The bytes of a recording. `content`: strict JSON; `arrays`: by name."""
    from safetensors.numpy import save

    members = {
        "content.json": json.dumps(content, allow_nan=False, separators=(",", ":")).encode(),
        "numbers.safetensors": save(arrays),
    }
    sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()}
    head = {"format": RECORDING_FORMAT, "version": RECORDING_VERSION, "members": sums}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in {"recording.json": json.dumps(head, indent=1).encode(), **members}.items():
            if len(data) > LARGEST_MEMBER[name]:
                raise VisitError(
                    f"This run is too large for a recording: {name} has {len(data) >> 20} MB of "
                    f"{LARGEST_MEMBER[name] >> 20}. Keep fewer parts, record fewer heads, or shorten the prompt."
                )
            if name.endswith(".json") and _parts_of(data) > MOST_PARTS:
                raise VisitError("This run is too large for a recording. Keep fewer parts, or shorten the prompt.")
            # with a date of its own the same run would be another file each time
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def unpacked_recording(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """(content, arrays) of the bytes of a recording, judged as the module says."""
    if len(data) > LARGEST_FILE:
        raise broken_file(f"it has {len(data) >> 20} MB, and at most {LARGEST_FILE >> 20} are read")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _judged_members(archive.infolist())
            head = _json_object(_member(archive, entries["recording.json"]), "recording.json")
            sums = _judged_head(head)
            members = {name: _member(archive, entries[name]) for name in sums}
    except VisitError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise broken_file("it is no zip file as VISIT writes it, or not all of one") from error
    for name, (size, digest) in sums.items():
        if len(members[name]) != size or hashlib.sha256(members[name]).hexdigest() != digest:
            raise broken_file(f"{name} is not what was saved: it was damaged or edited")
    return _json_object(members["content.json"], "content.json"), _arrays_of(members["numbers.safetensors"])


def unpacked_size(data: bytes) -> int:
    """The bytes that a recording unpacks to, by what its own list says: more than that is never unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise broken_file("it is no zip file as VISIT writes it, or not all of one") from error


def _judged_members(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The three members by their names, by what the zip says of them; nothing is unpacked yet."""
    names = [entry.filename for entry in entries]
    if sorted(names) != sorted(LARGEST_MEMBER):  # also a name twice, and one that leads out of the file
        raise broken_file(f"it holds {len(names)} files, and a recording holds {', '.join(LARGEST_MEMBER)}")
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise broken_file(f"{entry.filename} is encrypted, or packed in another way")
        if entry.file_size > LARGEST_MEMBER[entry.filename]:
            raise broken_file(f"{entry.filename} would have {entry.file_size >> 20} MB")
        if entry.file_size > _FREE and entry.file_size > MOST_PACKED * max(1, entry.compress_size):
            raise broken_file(f"{entry.filename} is packed more than {MOST_PACKED} times")
    return {entry.filename: entry for entry in entries}


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """One member, never more of it than it said; its checksum is compared by the zip."""
    with archive.open(entry) as file:
        return file.read(entry.file_size + 1)


def _judged_head(head: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """Size and sum of the two other members, of a format and version that is read here."""
    if head.get("format") != RECORDING_FORMAT:
        raise broken_file("its recording.json names another format")
    version = head.get("version")
    if isinstance(version, int) and version > RECORDING_VERSION:
        raise VisitError(
            f"This recording was written in version {str(version)[:20]} of the format; this VISIT reads version "
            f"{RECORDING_VERSION}. Open it with a newer VISIT."
        )
    sums = head.get("members")
    if version != RECORDING_VERSION or isinstance(version, bool) or not isinstance(sums, dict):
        raise broken_file("its recording.json names no version and sums")
    found = {}
    for name in ("content.json", "numbers.safetensors"):
        of = sums.get(name)
        if not isinstance(of, dict) or type(of.get("bytes")) is not int or not isinstance(of.get("sha256"), str):
            raise broken_file(f"its recording.json has no sum of {name}")
        found[name] = of["bytes"], of["sha256"]
    return found


def _parts_of(data: bytes) -> int:
    """About how many values a JSON text has, at most: by the signs between which they stand."""
    return sum(map(data.count, (b",", b":", b"[", b"{")))


def _json_object(data: bytes, name: str) -> dict[str, Any]:
    if _parts_of(data) > MOST_PARTS:
        raise broken_file(f"{name} has more than {MOST_PARTS:,} parts")
    try:
        found = strict_json(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise broken_file(f"{name} is not strict JSON") from error
    if not isinstance(found, dict):
        raise broken_file(f"{name} is no JSON object")
    layer: list[Any] = [found]
    for _ in range(_DEEPEST):
        layer = [part for one in layer for part in (one.values() if isinstance(one, dict) else one)
                 if isinstance(part, dict | list)]  # fmt: skip
    if layer:
        raise broken_file(f"{name} is nested more than {_DEEPEST} deep")
    return found


def _arrays_of(data: bytes) -> Arrays:
    from safetensors.numpy import load

    if int.from_bytes(data[:8], "little") > _LONGEST_HEADER:
        raise broken_file("the header of numbers.safetensors names more of them than a recording has")
    try:
        arrays = load(data)
    except Exception as error:  # its library judges the header, and has many names for what is wrong with one
        raise broken_file("the header of numbers.safetensors does not fit its numbers") from error
    if wrong := next((name for name, array in arrays.items() if str(array.dtype) not in _TYPES), None):
        raise broken_file(f"{wrong[:60]!r} has a type of number that no recording has")
    return dict(arrays)
