"""Lustre's `lfs`: keeps the stripes that directories were given, and prints what version 2.15 prints.

Directories belong to project 7; limits are 2 GiB of a user, none of a group, 512 MiB of a project. A file
`broken` beside the program makes every call fail.
"""

import json
import sys
from pathlib import Path


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    here = Path(sys.argv[0]).parent
    state = here / "stripes.json"
    known = json.loads(state.read_text()) if state.exists() else {}
    verb, *words = sys.argv[1:]
    if (here / "broken").exists():
        sys.exit(f"{verb}: cannot talk to the MDS: Cannot send after transport endpoint shutdown (108)")
    if verb == "setstripe":
        given = dict(zip(words[:-1:2], words[1:-1:2], strict=True))
        known[words[-1]] = {"count": given.get("-c", "1"), "size": given.get("-S", "1048576")}
        state.write_text(json.dumps(known))
    elif verb == "getstripe":
        stripes = known.get(words[-1], {"count": "1", "size": "1048576"})
        say(words[-1])
        say(
            f"stripe_count:  {stripes['count']} stripe_size:   {stripes['size']} "
            "pattern:       raid0 stripe_offset: -1"
        )
    elif verb == "project":
        say(f"    7 P {words[-1]}")
    else:
        kind, limit = {"-u": ("usr", 2097152), "-g": ("grp", 0), "-p": ("prj", 524288)}[words[0]]
        say(
            f"Disk quotas for {kind} {words[1]} ({kind[0]}id {words[1]}):\n"
            "     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace\n"
            f"     {words[-1]}    1024       0 {limit}       -     120       0     300       -"
        )


if __name__ == "__main__":
    main()
