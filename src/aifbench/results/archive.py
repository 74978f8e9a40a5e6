"""One zip with all evidence of a run and no secret in it.

Files are deflated at level 1: samples of a million operations take 0.45 s and 19 MB, against 2.4 s
and 18 MB for numpy's own compressed format.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from aifbench.errors import ResultError
from aifbench.results.masking import mask_json, mask_lines, secret_values

_BINARY = {".npz", ".gz"}  # numbers and their labels only, so nothing to mask
_CHUNK = 1 << 20
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say
_OWN = ("README.txt", "sha256sum.txt")

_README = """\
AI Factory Bench: all evidence of run {run_id}

  record.json     what was asked, where it ran, every number, verdict and error text
  report.html     the report, for any browser (report.md: the same in Markdown)
  phases/         per phase: plan.json as the workers got it, what they reported, and
                  samples-*.npz with every single operation (numpy; times in nanoseconds)
  service/        the batch script of the service and the log of its job
  prometheus/     where monitors ran: what they saw of the service meanwhile, as OpenMetrics text
  sha256sum.txt   check with: sha256sum -c sha256sum.txt

Every number of the report follows from the samples. To make the report again, put this
directory into the results directory of an AI Factory Bench checkout (git commit, options and
versions are in record.json) and type:

  aifbench "show {run_id}"

Secrets are masked as ***, here and in the logs; {skipped}
"""


def save_zip(run_dir: Path, out: Path, secrets: Sequence[Path | str] = ()) -> Path:
    """Zip `run_dir` to `out`, or into it when it is a directory; the path that was written.

    An existing file is never replaced: the name then gets a number (`run-2.zip`). `secrets` are files
    that hold secrets, which are left out, or secret values. The zip appears complete or not at all.
    """
    if not run_dir.is_dir():
        raise ResultError(f"no run directory {run_dir}", hint="`results` lists the runs")
    values = secret_values(secrets)
    members = _members(run_dir, secrets)
    target = _free_name(out / f"{run_dir.name}.zip" if out.is_dir() else out)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(partial, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            _fill(archive, run_dir, members, values, skipped=_skipped_text(secrets))
        partial.rename(target)
    except OSError as error:
        raise ResultError(
            f"cannot write {target}: {error.strerror or error}",
            hint="give another place with --out, such as a directory that exists and has space",
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return target


def _members(run_dir: Path, secrets: Iterable[Path | str]) -> list[Path]:
    """Regular files in a fixed order, without half-written ones, links, heartbeats and secret files."""
    hidden = {secret.resolve() for secret in secrets if isinstance(secret, Path)}
    return sorted(
        path
        for path in run_dir.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and path.suffix != ".part"
        and path.relative_to(run_dir).as_posix() not in ("heartbeat", *_OWN)
        and path.resolve() not in hidden
    )


def _fill(
    archive: zipfile.ZipFile, run_dir: Path, members: Sequence[Path], values: Sequence[bytes], skipped: str
) -> None:
    sums = []
    newest_s = 0.0
    for path in members:
        name = path.relative_to(run_dir).as_posix()
        modified_s = path.stat().st_mtime
        newest_s = max(newest_s, modified_s)
        sums.append((_write(archive, f"{run_dir.name}/{name}", modified_s, _content(path, values)), name))
    readme = _README.format(run_id=run_dir.name, skipped=skipped).encode()
    sums.append((_write(archive, f"{run_dir.name}/README.txt", newest_s, [readme]), "README.txt"))
    text = "".join(f"{digest}  {name}\n" for digest, name in sums).encode()
    _write(archive, f"{run_dir.name}/sha256sum.txt", newest_s, [text])


def _write(archive: zipfile.ZipFile, name: str, modified_s: float, content: Iterable[bytes]) -> str:
    """Add one member; the sha256 of what it holds."""
    date = datetime.fromtimestamp(max(modified_s, 0), UTC).timetuple()[:6]
    member = zipfile.ZipInfo(name, max(date, _FIRST_DATE))
    member.compress_type = zipfile.ZIP_DEFLATED
    # `open` takes the archive's level for plain names only, and plain names lose the date.
    member._compresslevel = archive.compresslevel  # type: ignore[attr-defined]
    member.external_attr = 0o644 << 16
    digest = hashlib.sha256()
    with archive.open(member, "w", force_zip64=True) as file:
        for part in content:
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _content(path: Path, values: Sequence[bytes]) -> Iterator[bytes]:
    if path.suffix == ".json":
        with suppress(ValueError, RecursionError):
            yield json.dumps(mask_json(json.loads(path.read_bytes()), values)).encode()
            return
    with path.open("rb") as file:
        if path.suffix in _BINARY:
            while chunk := file.read(_CHUNK):
                yield chunk
        else:
            yield from mask_lines(file, values, is_script=path.suffix == ".sh")


def _free_name(out: Path) -> Path:
    candidate, number = out, 2
    while candidate.exists():
        candidate = out.with_name(f"{out.stem}-{number}{out.suffix}")
        number += 1
    return candidate


def _skipped_text(secrets: Iterable[Path | str]) -> str:
    count = sum(isinstance(secret, Path) for secret in secrets)
    return f"{count} secret file(s) were left out." if count else "no secret file was left out."
