"""What people say about a run afterwards: words and a note, beside its record, which stays as measured."""

import json
import os
import pwd
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import ResultError, UsageError
from aifbench.results.files import write_json

TAGS_FILE = "tags.json"
KEEP = "keep"  # a run with this tag is never pruned
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
_MAX_WORDS = 50
_MAX_NOTE = 2000


@dataclass(frozen=True, slots=True)
class Tags:
    """`words` in the order they were given; `note` is free text on one line."""

    words: tuple[str, ...] = ()
    note: str = ""

    def with_words(self, words: Iterable[str]) -> "Tags":
        """Raises UsageError for what is no tag."""
        added = tuple(dict.fromkeys((*self.words, *map(_checked, words))))
        if len(added) > _MAX_WORDS:
            raise UsageError(f"{len(added)} tags on one run", hint=f"at most {_MAX_WORDS}")
        return Tags(added, self.note)

    def without_words(self, words: Iterable[str]) -> "Tags":
        """Raises UsageError for a tag that is not there."""
        gone = list(words)
        for word in gone:
            if word not in self.words:
                have = f"it has: {', '.join(self.words)}" if self.words else "it has none"
                raise UsageError(f"the run has no tag {word!r}", hint=have)
        return Tags(tuple(word for word in self.words if word not in gone), self.note)

    def with_note(self, text: str) -> "Tags":
        """Another note; nothing for none."""
        note = " ".join(text.split())
        if len(note) > _MAX_NOTE:
            raise UsageError(f"the note has {len(note):,} characters", hint=f"at most {_MAX_NOTE:,}")
        return Tags(self.words, note)


NO_TAGS = Tags()


def read_tags(run_dir: Path) -> Tags:
    """The run's tags; none where there are none or they cannot be read, for they are no measurement."""
    try:
        data = json.loads((run_dir / TAGS_FILE).read_bytes())
        words = tuple(str(word) for word in data["tags"])
        return Tags(words, str(data.get("note") or ""))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return NO_TAGS


def write_tags(run_dir: Path, tags: Tags, uid: int | None = None) -> None:
    """Store `tags` whole or not at all; `uid` is one's own. Raises ResultError for a run of somebody else."""
    require_own(run_dir, uid)
    write_json(run_dir / TAGS_FILE, {"tags": list(tags.words), "note": tags.note})


def say(run_dirs: Sequence[Path], change: Callable[[Tags], Tags], uid: int | None = None) -> None:
    """Change the tags of runs, of all or, where one of them cannot be, of none."""
    for run_dir in run_dirs:
        require_own(run_dir, uid)
    changed = [(run_dir, change(read_tags(run_dir))) for run_dir in run_dirs]
    for run_dir, tags in changed:
        write_tags(run_dir, tags, uid)


def require_own(run_dir: Path, uid: int | None = None) -> None:
    """In a shared results folder, everybody changes their own runs only. Raises ResultError."""
    try:
        owner = run_dir.stat().st_uid
    except OSError as error:
        raise ResultError(f"cannot read {run_dir}: {error.strerror or error}") from error
    if owner != (os.geteuid() if uid is None else uid):
        raise ResultError(
            f"run {run_dir.name} belongs to {_user(owner)}", hint="only its owner may tag or delete it"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _checked(word: str) -> str:
    if not _WORD.fullmatch(word):
        raise UsageError(
            f"{word!r} is no tag", hint="a tag is at most 40 letters, digits and . _ + -, such as baseline"
        )
    return word
