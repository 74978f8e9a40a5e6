"""Constraints on what a model may answer, and whether an answer kept them.

A server can ignore a constraint without a word (vLLM 0.32 accepts the removed `guided_*` fields and does),
or enforce only a part of a schema, so every answer is judged here, by code that no server uses.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from aifbench.errors import UsageError
from aifbench.workloads.structured_judges import Judgement, judge, obstacle

FIELD_STYLES = ("structured_outputs", "response_format")
NO_WHITESPACE_HINT = "start vLLM with --structured-outputs-config.disable_any_whitespace true"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what OpenAI's response_format takes


class Kind(StrEnum):
    JSON = "json"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True)
class Constraint:
    """`definition`: the schema, the pattern, the tuple of choices, or the grammar (GBNF or Lark).

    Raises UsageError for a definition that no server could use.
    """

    kind: Kind
    definition: Any
    name: str = "answer"

    def __post_init__(self) -> None:
        defect = _defect(self.kind, self.definition)
        if defect:
            raise UsageError(f"the {self.kind} constraint {self.name!r} cannot be used: {defect}")
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"the constraint name {self.name!r} is not valid", hint="1 to 64 letters, digits, _ and -"
            )

    def fields(self, style: str = "structured_outputs") -> dict[str, Any]:
        """What to merge into the body of a chat or completions request."""
        definition = list(self.definition) if self.kind is Kind.CHOICE else self.definition
        if style == "structured_outputs":
            return {"structured_outputs": {self.kind.value: definition}}
        if style != "response_format":
            raise UsageError(
                f"the field style {style!r} is not known", hint=f"valid: {', '.join(FIELD_STYLES)}"
            )
        if self.kind is not Kind.JSON:
            raise UsageError(
                f"response_format cannot carry a {self.kind} constraint",
                hint="use structured_outputs, or json",
            )
        schema = {"name": self.name, "schema": definition, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def judge(self, text: str, finished_by_length: bool) -> Judgement:
        """Whether an answer keeps the constraint; never raises."""
        return judge(self.kind, self._text(), text, finished_by_length)

    def obstacle(self) -> str:
        """Why no answer can be judged on this machine, with the remedy; empty when it can."""
        return obstacle(self.kind, self._text())

    @property
    def whitespace_can_run_on(self) -> bool:
        """Servers let a model put any whitespace between the parts of a JSON object or array.

        A model without training may do nothing else until its tokens are spent; see NO_WHITESPACE_HINT.
        vLLM takes that setting from its command line only: in a request it is accepted and not used.
        """
        return self.kind is Kind.JSON and not _is_flat(self.definition)

    def _text(self) -> str:
        if self.kind in (Kind.JSON, Kind.CHOICE):
            return json.dumps(self.definition, ensure_ascii=False)
        return str(self.definition)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "definition": self.definition, "name": self.name}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        kind, definition = Kind(fields["kind"]), fields["definition"]
        return cls(kind, tuple(definition) if kind is Kind.CHOICE else definition, fields["name"])


def _defect(kind: Kind, definition: object) -> str:
    match kind:
        case Kind.JSON:
            return "" if isinstance(definition, dict) else "the schema is not an object"
        case Kind.CHOICE:
            texts = isinstance(definition, tuple) and all(
                isinstance(each, str) and each for each in definition
            )
            return "" if texts and definition else "it needs a list of texts that are not empty"
    if not isinstance(definition, str) or not definition.strip():
        return "it needs a text"
    if kind is Kind.REGEX:
        try:
            re.compile(definition)
        except (re.error, OverflowError, RecursionError) as error:
            return f"{definition!r}: {error}"
    return ""


def _is_flat(schema: Mapping[str, Any]) -> bool:
    """Whether only literals or single values are allowed, between which there is no place for whitespace."""
    types = schema.get("type", "")
    scalar = {"string", "integer", "number", "boolean", "null"}
    return (
        "enum" in schema
        or "const" in schema
        or bool(types and set([types] if isinstance(types, str) else types) <= scalar)
    )
