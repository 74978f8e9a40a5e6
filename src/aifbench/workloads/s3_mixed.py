"""A mixture of S3 operations, each made and judged as in s3_http."""

import math
import random
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.http import split_response
from aifbench.load.workload import Outcome
from aifbench.workloads.s3_control import DEFAULT_REGION
from aifbench.workloads.s3_http import PREPARED_REQUESTS, Delete, Get, Head, Put, RangeGet, Request

WEIGHTED = ("get", "range", "head", "put", "delete")


class Mixed:
    """Operations of several kinds in fixed shares, in an order without pattern; WEIGHTED names them.

    Reads are of the `count` objects stored before, writes make up to `most_new` new ones and then the same
    again, deletions remove first the `doomed` ones made for it and then what was written.
    """

    wants_head: ClassVar[bool] = True  # some kinds do

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        count: int,
        weights: Mapping[str, float],
        most_new: int,
        doomed: int = 0,
        range_bytes: int = 2**20,
        payload: str = "auto",
        region: str = DEFAULT_REGION,
    ) -> None:
        if unknown := set(weights) - set(WEIGHTED):
            raise WorkloadError(f"unknown operations {sorted(unknown)}", hint=f"valid: {', '.join(WEIGHTED)}")
        self._pattern = Pattern(weights)
        own = {"bucket": bucket, "region": region}
        self._doomed = doomed
        new = {**objects, "prefix": "new-"}
        self._kinds: dict[str, Any] = {
            "get": Get(objects=objects, count=count, **own),
            "range": RangeGet(objects=objects, count=count, range_bytes=range_bytes, **own),
            "head": Head(objects=objects, count=count, **own),
            "put": Put(objects=new, count=most_new, payload=payload, **own),
            "delete": Delete(objects=new, count=most_new, **own),
            "doomed": Delete(objects={**objects, "prefix": "doomed-"}, count=max(1, doomed), **own),
        }

    def open(self, endpoint: Endpoint) -> None:
        for kind in self._kinds.values():
            kind.open(endpoint)

    def prepare(self, indices: Iterable[int]) -> None:
        ahead: dict[str, list[int]] = {}
        for index, _ in zip(indices, range(PREPARED_REQUESTS // 4), strict=False):
            name, rank = self._of(index)
            ahead.setdefault(name, []).append(rank)
        for name, ranks in ahead.items():
            self._kinds[name].prepare(ranks)

    def operation(self, index: int) -> tuple[str, int]:
        """What operation `index` is, and how many of its kind come before it."""
        return self._pattern[index]

    def size(self, index: int) -> int:
        name, rank = self._of(index)
        size: int = self._kinds[name].size(rank)
        return size

    def request(self, index: int) -> Request:
        name, rank = self._of(index)
        request: Request = self._kinds[name].request(rank)
        return request

    def keeps(self, index: int) -> bool:
        name, rank = self._of(index)
        return bool(self._kinds[name].keeps(rank))

    def interpret(self, index: int, status: int, answer: bytes) -> Outcome:
        name, rank = self._of(index)
        kind = self._kinds[name]
        wanted = answer if getattr(kind, "wants_head", False) else split_response(answer)[1]
        outcome: Outcome = kind.interpret(rank, status, wanted)
        return outcome

    def refusal(self, status: int, body: bytes) -> str:
        return str(self._kinds["get"].refusal(status, body))

    def close(self) -> None: ...

    def _of(self, index: int) -> tuple[str, int]:
        name, rank = self._pattern[index]
        if name != "delete":
            return name, rank
        return ("doomed", rank) if rank < self._doomed else ("delete", rank - self._doomed)


class Pattern:
    """Names in given shares: each run of 100 has every name as often as it weighs, shuffled once."""

    LENGTH = 100

    def __init__(self, weights: Mapping[str, float]) -> None:
        total = sum(weights.values())
        if not weights or min(weights.values()) < 0 or not total > 0:
            raise WorkloadError(f"the weights {dict(weights)} cannot be used", hint="give some above 0")
        bounds, self._names, seen = 0.0, [], 0
        for name, weight in sorted(weights.items()):
            bounds += self.LENGTH * weight / total
            upto = math.floor(bounds + 0.5)  # round() would make 0 or 2 of shares of one
            self._names += [name] * (upto - seen)
            seen = upto
        random.Random(0).shuffle(self._names)
        self._counts = {name: self._names.count(name) for name in set(self._names)}
        self._before = [self._names[:place].count(name) for place, name in enumerate(self._names)]

    def __getitem__(self, index: int) -> tuple[str, int]:
        rounds, place = divmod(index, self.LENGTH)
        name = self._names[place]
        return name, rounds * self._counts[name] + self._before[place]
