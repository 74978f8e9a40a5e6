"""Taking secrets out of text before it leaves the machine: known values, and what looks like one."""

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aifbench.errors import ResultError

MASK = b"***"
MIN_SECRET_CHARS = 4  # shorter values would mask ordinary words
MOST_KEY_BYTES = 65_536  # of a private key as text; the longest in use have an eighth of it

_KEY = rb"(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|credentials?)"
_SECRET_NAME = re.compile(_KEY + rb"$", re.IGNORECASE)
_IS = rb"""\\?["']?\s*[=:]\s*\\?"""
_VALUE = rb""""(?:[^"\\\n]|\\.)+"?|'[^'\n]+'?|(?!(?:null|true|false|none)\b)[^\s"',;&}\]\\]+"""
_PRIVATE_KEY = rb"-----%s [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----"
_KEY_BEGIN = re.compile(_PRIVATE_KEY % b"BEGIN")
_KEY_END = re.compile(_PRIVATE_KEY % b"END")
_KEY_ON_ONE_LINE = re.compile(_KEY_BEGIN.pattern + b".*?" + _KEY_END.pattern)

# Group 1 is kept, the rest is the secret. Repeats before a fixed word are bounded, because files
# written on one long line would otherwise take quadratic time.
_PATTERNS = tuple(
    re.compile(source, re.IGNORECASE)
    for source in (
        # Authorization: Bearer xxx, "authorization": "Basic xxx", X-Auth-Token: xxx
        rb"""((?:authorization|x-[a-z-]{0,40}token)["']?\s*[:=]\s*["']?(?:[a-z]+\s+)?)[^\s"',;]+""",
        rb"""(\bbearer\s+)[a-z0-9._~+/=-]{8,}""",
        # password=xxx, "hf_token": "xxx", PGPASSWORD: 'xxx', --api-key xxx
        rb"""(%s%s)(?:%s)""" % (_KEY, _IS, _VALUE),
        rb"""(--[a-z-]{0,40}%s\s+)(?:"[^"\n]+"|'[^'\n]+'|[^\s"'-]\S*)""" % _KEY,
        # scheme://user:password@host
        rb"""(://[^\s/:@"']{0,80}:)[^\s/@"']+(?=@)""",
        rb"""()\b(?:hf|ghp|gho|ghs|glpat|github_pat)[_-][a-z0-9_-]{8,}""",
        rb"""()\bsk-[a-z0-9_-]{16,}""",
        rb"""()\b(?:AKIA|ASIA)[a-z0-9]{12,}""",
        rb"""()\beyJ[a-z0-9_-]{8,}\.[a-z0-9_-]{8,}\.[a-z0-9_-]*""",  # JSON web token
    )
)


# A line without any of these cannot match, and is let through several times faster.
_HINTS = (
    b"auth", b"token", b"bearer", b"passw", b"passphrase", b"secret", b"key", b"credential", b"://",
    b"hf_", b"hf-", b"gh", b"glpat", b"github", b"sk-", b"akia", b"asia", b"eyj",
)  # fmt: skip


def secret_values(secrets: Iterable[Path | str]) -> list[bytes]:
    """The values to hide, longest first, also as base64, percent-encoded and JSON-escaped.

    A path is read; one that no longer exists has nothing to tell. Raises ResultError for a file that
    exists and cannot be read, because its value could not be masked.
    """
    found: set[str] = set()
    for secret in secrets:
        text = _read(secret) if isinstance(secret, Path) else secret
        lines = [line.strip() for line in text.splitlines()]
        found.update(lines, (line.partition(":")[2] for line in lines))  # user:secret hides the secret alone
    forms = {form for value in found if len(value) >= MIN_SECRET_CHARS for form in _forms(value)}
    return sorted((form.encode() for form in forms), key=len, reverse=True)


def mask_lines(
    lines: Iterable[bytes], secrets: Sequence[bytes] = (), *, is_script: bool = False
) -> Iterator[bytes]:
    """`lines` without secrets; a private key over several lines is replaced as a whole.

    In a script `token=$NAME` stays, because it names a variable and tells nothing.
    """
    inside_key = False
    for line in lines:
        if inside_key:
            inside_key = not _KEY_END.search(line)
            continue
        text, inside_key = _without_key(line) if b"PRIVATE KEY" in line else (line, False)
        yield _mask(text, secrets, is_script)


def mask_block(text: bytes, secrets: Sequence[bytes] = ()) -> bytes:
    """What `mask_lines` makes of the lines of a text that is in memory, in a fraction of the time.

    Hints are looked for in the whole text at once: only the lines that have one cost anything.
    """
    if b"PRIVATE KEY" in text:
        return b"".join(mask_lines(io.BytesIO(text), secrets))
    for secret in secrets:
        text = text.replace(secret, MASK)
    parts, done = [], 0
    for begin, end in sorted(_hinted_lines(text.lower())):
        parts += [text[done:begin], _mask(text[begin:end], (), is_script=False)]
        done = end
    return b"".join([*parts, text[done:]])


def open_key_bytes(text: bytes) -> int:
    """How long the private key is that begins in `text` and does not end there; 0 when there is none."""
    begin = text.rfind(b"-----BEGIN ")
    while begin >= 0 and not _KEY_BEGIN.match(text, begin):
        begin = text.rfind(b"-----BEGIN ", 0, begin)
    return 0 if begin < 0 or _KEY_END.search(text, begin) else len(text) - begin


def behind_key(text: bytes, key_bytes: int) -> tuple[bytes, int]:
    """What follows a private key that began `key_bytes` before `text`, and how long the key is by now.

    The length is 0 once the key has ended, or is longer than keys are: it was none then.
    """
    budget = MOST_KEY_BYTES - key_bytes
    if budget <= 0:
        return text, 0
    if end := _KEY_END.search(text, 0, budget):
        over = end.end()
    elif len(text) < budget:
        return b"", key_bytes + len(text)
    else:
        over = budget
    line_end = text.find(b"\n", over)
    return (b"" if line_end < 0 else text[line_end + 1 :]), 0


def _hinted_lines(lowered: bytes) -> set[tuple[int, int]]:
    """Begin and end of each line that holds one of _HINTS."""
    found = set()
    for hint in _HINTS:
        at = lowered.find(hint)
        while at >= 0:
            end = lowered.find(b"\n", at)
            end = len(lowered) if end < 0 else end
            found.add((lowered.rfind(b"\n", 0, at) + 1, end))
            at = lowered.find(hint, end)
    return found


def _without_key(line: bytes) -> tuple[bytes, bool]:
    """The line without its private keys, and whether one goes on in the next line."""
    line = _KEY_ON_ONE_LINE.sub(MASK, line)
    begin = _KEY_BEGIN.search(line)
    return (line[: begin.start()] + MASK + b"\n", True) if begin else (line, False)


def mask_json(value: Any, secrets: Sequence[bytes] = ()) -> Any:
    """A JSON document without secrets: in every text, and whatever text has a secret's name."""
    if isinstance(value, str):
        return b"".join(mask_lines([value.encode()], secrets)).decode()
    if isinstance(value, list):
        return [mask_json(item, secrets) for item in value]
    if isinstance(value, dict):
        return {mask_json(key, secrets): _mask_member(key, item, secrets) for key, item in value.items()}
    return value


def _mask_member(key: str, value: Any, secrets: Sequence[bytes]) -> Any:
    if not _SECRET_NAME.search(key.encode()):
        return mask_json(value, secrets)
    if isinstance(value, list):
        return [_mask_member(key, item, secrets) for item in value]
    return MASK.decode() if isinstance(value, str) and value else mask_json(value, secrets)


def _mask(line: bytes, secrets: Sequence[bytes], is_script: bool) -> bytes:
    for secret in secrets:
        line = line.replace(secret, MASK)
    lowered = line.lower()
    if not any(hint in lowered for hint in _HINTS):
        return line
    replacement = partial(_keep_name, is_script=is_script)
    for pattern in _PATTERNS:
        line = pattern.sub(replacement, line)
    return line


def _keep_name(match: re.Match[bytes], is_script: bool) -> bytes:
    """The mask in the place of the value alone, in the quotes that the value had."""
    name = match[1]
    value = match[0][len(name) :]
    if is_script and value.lstrip(b"\"'").startswith(b"$"):
        return match[0]
    quote_mark = value[:1] if value[:1] in (b'"', b"'") else b""
    return name + quote_mark + MASK + quote_mark


def _forms(value: str) -> set[str]:
    encoded = base64.b64encode(value.encode()).decode()
    return {value, quote(value, safe=""), json.dumps(value)[1:-1], encoded}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ResultError(f"cannot read the secret to be masked, {path}") from error
