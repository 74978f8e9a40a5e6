"""Wait until every node has joined a Ray cluster: `await_ray.py ADDRESS NODES TIMEOUT_S`.

Says whenever the number of nodes changes; ends with 1 when the time is over, naming how many are missing.
"""

import sys
import time

POLL_S = 1.0


def say(text: str) -> None:
    sys.stderr.write(f"aifbench: {text}\n")
    sys.stderr.flush()


def alive_nodes(gcs) -> int:
    try:
        return sum(1 for node in gcs.get_all_node_info().values() if node.state == 0)
    except Exception as error:  # its own kinds, which move between versions; the time limit ends this
        say(f"Ray does not answer yet: {type(error).__name__}")
        return 0


def main() -> int:
    address, wanted, timeout_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    from ray._raylet import GcsClient

    deadline_s = time.monotonic() + timeout_s
    gcs, joined = None, -1
    while True:
        try:
            gcs = gcs or GcsClient(address=address)
        except Exception as error:
            say(f"Ray does not answer yet: {type(error).__name__}")
        now_joined = alive_nodes(gcs) if gcs else 0
        if now_joined != joined:
            joined = now_joined
            say(f"{joined} of {wanted} Ray nodes joined")
        if joined >= wanted:
            return 0
        if time.monotonic() > deadline_s:
            missing = wanted - joined
            say(f"only {joined} of {wanted} Ray nodes joined within {timeout_s:g} s: {missing} missing")
            return 1
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
