"""Runs that come as files from elsewhere: a zip made by `save`, a run's directory, or a record alone.

Nothing is unpacked. A record whose checksum does not match is refused; other files that are missing or were
changed are told, for the numbers are in the record.
"""

import hashlib
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from aifbench.errors import ResultError, SchemaMismatch
from aifbench.results.record import RunRecord

RECORD = "record.json"
SUMS = "sha256sum.txt"
# Made from the record and made again at will, or said about the run afterwards.
_DERIVED = ("report.html", "report.md", "metrics.csv", "metrics.json", "tags.json")
_MAX_RECORD_BYTES = 256 << 20

# What is damaged inside of a zip says so in the words of whatever unpacks it.
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)

Open = Callable[[str], IO[bytes]]


def read_evidence(path: Path) -> tuple[list[RunRecord], list[str]]:
    """The records of a file or directory, and what is wrong with the files they rest on.

    Raises ResultError for what is no run, SchemaMismatch for a record this version cannot read.
    """
    try:
        if path.is_dir():
            return _read_directory(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(path, archive)
        if path.suffix == ".zip" and path.exists():
            raise ResultError(f"{path} is no zip, or was cut", hint="copy it again; `save` made it")
        with path.open("rb") as file:
            content = file.read(_MAX_RECORD_BYTES + 1)
        if len(content) > _MAX_RECORD_BYTES:
            raise ResultError(f"{path} is too large for a record")
        return [_record(content, str(path))], []
    except (OSError, *_BAD_ZIP) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ResultError(f"cannot read {path}: {reason}") from error


def verify(directory: Path, record: RunRecord) -> list[str]:
    """What is missing or was changed of the files whose checksums a run's record holds."""
    return _compared(record.files, lambda name: (directory / name).open("rb"), record.run_id)


def _read_directory(path: Path) -> tuple[list[RunRecord], list[str]]:
    target = path / RECORD
    if not target.is_file():
        raise ResultError(f"{path} holds no {RECORD}", hint="give a run's directory, a zip or a record.json")
    sums = path / SUMS
    if not sums.is_file():
        record = _record(target.read_bytes(), str(target))
        return [record], verify(path, record)
    digests = parse_sums(sums.read_text(encoding="utf-8", errors="replace"))
    record = _checked_record(target.read_bytes(), digests.get(RECORD), str(target))
    return [record], _compared(digests, lambda name: (path / name).open("rb"), record.run_id)


def _read_zip(path: Path, archive: zipfile.ZipFile) -> tuple[list[RunRecord], list[str]]:
    records, problems = [], []
    for info in archive.infolist():
        root = PurePosixPath(info.filename).parent
        if PurePosixPath(info.filename).name != RECORD:
            continue
        if info.file_size > _MAX_RECORD_BYTES:
            raise ResultError(f"{path}: {info.filename} has {info.file_size:,} bytes, too many for a record")
        digests = _zip_sums(archive, root)
        record = _checked_record(archive.read(info), digests.get(RECORD), f"{path}: {info.filename}")
        if not digests:
            problems.append(f"{path}: no {SUMS}; nothing says whether its files are as measured")
        problems += _compared(digests, lambda name, at=root: archive.open(str(at / name)), record.run_id)  # type: ignore[misc]
        records.append(record)
    if not records:
        raise ResultError(f"{path} holds no {RECORD}", hint="give a zip that `save` made")
    return records, problems


def _zip_sums(archive: zipfile.ZipFile, root: PurePosixPath) -> Mapping[str, str]:
    try:
        return parse_sums(archive.read(str(root / SUMS)).decode("utf-8", "replace"))
    except KeyError:
        return {}


def parse_sums(text: str) -> dict[str, str]:
    """File name to digest, from what `sha256sum` writes."""
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {pair[1].lstrip("*"): pair[0].lower() for pair in pairs if len(pair) == 2}


def _checked_record(content: bytes, digest: str | None, where: str) -> RunRecord:
    found = hashlib.sha256(content).hexdigest()
    if digest is not None and found != digest:
        raise ResultError(
            f"{where} was changed: its sha256 is {found[:12]}..., {SUMS} says {digest[:12]}...",
            hint="ask for the zip as it was saved",
        )
    return _record(content, where)


def _record(content: bytes, where: str) -> RunRecord:
    try:
        return RunRecord.from_json(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise SchemaMismatch(f"{where} is not complete JSON") from error
    except SchemaMismatch as error:
        raise SchemaMismatch(f"{where}: {error.message}", hint=error.hint) from error


def _compared(digests: Mapping[str, str], opened: Open, run_id: str) -> list[str]:
    """`RUN: FILE was changed (sha256 1234... instead of 5678...)` for each that does not match."""
    problems = []
    for name, digest in sorted(digests.items()):
        if name in (*_DERIVED, RECORD):
            continue
        try:
            with opened(name) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except (OSError, KeyError, *_BAD_ZIP):
            problems.append(f"{run_id}: {name} is missing or unreadable")
            continue
        if found != digest:
            problems.append(
                f"{run_id}: {name} was changed (sha256 {found[:12]}... instead of {digest[:12]}...)"
            )
    return problems
