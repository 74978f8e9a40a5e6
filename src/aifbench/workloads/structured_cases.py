"""Prompts with constraints on their answers: built-in sets, and a user's own file.

The built-in answers are short (a few dozen tokens) and bounded in every part, so that a model without
training ends them as well; only the whitespace of JSON is not (`Constraint.whitespace_can_run_on`).
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifbench.errors import UsageError, WorkloadError
from aifbench.workloads.structured import Constraint, Kind

_KEYS = {"json_schema": Kind.JSON, "regex": Kind.REGEX, "choice": Kind.CHOICE, "grammar": Kind.GRAMMAR}
_PEOPLE = ("Amina", "Bojan", "Chiara", "Dieter", "Elif", "Farid", "Greta", "Hugo")
_PLACES = ("Esch", "Bissen", "Trieste", "Ostrava", "Kajaani", "Maribor", "Evora", "Sofia")
_THINGS = ("storage node", "login page", "cooling loop", "batch queue", "network link", "data set")


@dataclass(frozen=True, slots=True)
class Case:
    prompt: str
    constraint: Constraint


def cases(kind: str, count: int, seed: int, *, unique: bool) -> list[Case]:
    """`count` prompts of one kind, the same for both values of `unique`, so that answers can be paired.

    unique=False repeats one constraint (grammar: two, in turn): a server compiles it once. unique=True makes
    each differ in a word and in its bounds, also from those of any other seed: each is compiled. Servers may
    still reuse parts of what they compiled, as they would between the constraints of different users.
    """
    if kind not in _TEMPLATES:
        raise UsageError(f"the constraint kind {kind!r} is not known", hint=f"valid: {', '.join(_TEMPLATES)}")
    templates = _TEMPLATES[kind]
    made = []
    for index in range(count):
        template = templates[index % len(templates)]
        constraint = template.constraint(_variant(seed, index) if unique else _COMMON)
        made.append(Case(_prompt(template, seed, index), constraint))
    return made


@dataclass(frozen=True, slots=True)
class _Variant:
    """What makes a constraint unlike others: a word for its names, and a number from 0 to 9."""

    word: str
    number: int


_COMMON = _Variant("code", 0)


def _variant(seed: int, index: int) -> _Variant:
    draw = random.Random(f"{seed} {index}")
    return _Variant(f"k{draw.getrandbits(40):010x}", draw.randrange(10))


@dataclass(frozen=True, slots=True)
class _Template:
    task: str
    constraint: Callable[[_Variant], Constraint]


def _prompt(template: _Template, seed: int, index: int) -> str:
    draw = random.Random(f"prompt {seed} {index}")
    fields = {
        "person": draw.choice(_PEOPLE),
        "place": draw.choice(_PLACES),
        "thing": draw.choice(_THINGS),
        "number": draw.randrange(10, 100),
        "other": draw.randrange(10, 100),
    }
    return f"Request {draw.randrange(10**6):06d}. " + template.task.format(**fields)


def _report_schema(variant: _Variant) -> Constraint:
    properties: dict[str, Any] = {
        # By pattern: with maxLength xgrammar 0.2.8 lets control characters into strings, which is no JSON.
        "reporter": {"type": "string", "pattern": f"^[A-Z][a-z]{{1,{9 + variant.number}}}$"},
        "severity": {"enum": ["low", "medium", "high"]},
        "affected": {"type": "integer", "minimum": 0, "maximum": 90 + variant.number},
        "sites": {
            "type": "array",
            "items": {"enum": ["esch", "bissen", "sofia"]},
            "minItems": 1,
            "maxItems": 2,
        },
        f"{variant.word}_open": {"type": "boolean"},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return Constraint(Kind.JSON, schema, "report")


def _ticket_regex(variant: _Variant) -> Constraint:
    number = rf"{variant.word}-[A-Z]{{2}}[0-9]{{{4 + variant.number}}}"
    pattern = number + r" (open|closed|waiting) 20[0-9]{2}-(0[1-9]|1[0-2])"
    return Constraint(Kind.REGEX, pattern, "ticket")


def _queue_choice(variant: _Variant) -> Constraint:
    queues = [f"{variant.word} {queue}" for queue in ("network", "storage", "compute", "billing", "other")]
    return Constraint(Kind.CHOICE, tuple(queues[: 5 - variant.number % 3]), "queue")


def _sql_grammar(variant: _Variant) -> Constraint:
    grammar = rf"""
root ::= "SELECT " columns " FROM " table where? (" LIMIT " [1-9] [0-9]?)?
where ::= " WHERE " condition (" AND " condition){{0,2}}
columns ::= "*" | column (", " column){{0,2}}
table ::= "jobs" | "nodes" | "{variant.word}"
column ::= "id" | "name" | "state" | "{variant.word}_time"
condition ::= column " " ("=" | "<" | ">") " " (number | text)
number ::= [0-9]{{1,{3 + variant.number}}}
text ::= "'" [a-z]{{1,8}} "'"
"""
    return Constraint(Kind.GRAMMAR, grammar, "sql")


def _arithmetic_grammar(variant: _Variant) -> Constraint:
    # Two levels of parentheses by name: one recursive rule might never be left by a model without training.
    grammar = rf"""
root ::= "{variant.word} = " sum
sum ::= product ([+-] product){{0,3}}
product ::= factor ([*/] factor){{0,2}}
factor ::= number | "(" inner ([+*/-] inner){{1,2}} ")"
inner ::= number | "(" number [+*/-] number ")"
number ::= "0" | [1-9] [0-9]{{0,{2 + variant.number % 4}}}
"""
    return Constraint(Kind.GRAMMAR, grammar, "arithmetic")


_TEMPLATES: dict[str, tuple[_Template, ...]] = {
    "json": (
        _Template(
            "{person} reports from {place} that the {thing} fails for {number} users. Answer with a "
            "JSON object only, with the keys reporter (one name), severity (low, medium or high), "
            "affected (a number), sites (a list of one or two of esch, bissen, sofia) "
            "and code_open (true or false).",
            _report_schema,
        ),
    ),
    "regex": (
        _Template(
            "{person} in {place} asks about ticket {number}{other} on the {thing}. Answer with its line in "
            "the register only: code- and two capital letters, four digits, a state (open, closed or "
            "waiting) and the month as 2026-01.",
            _ticket_regex,
        ),
    ),
    "choice": (
        _Template(
            "{person} writes from {place}: the {thing} failed {number} times. Answer with the queue for "
            "this and nothing else: code network, code storage, code compute, code billing or code other.",
            _queue_choice,
        ),
    ),
    "grammar": (
        _Template(
            "Write one SQL SELECT without a final semicolon over the tables jobs and nodes (columns id, "
            "name, state, code_time) that finds at most {number} rows {person} in {place} may want. SQL "
            "only.",
            _sql_grammar,
        ),
        _Template(
            "{person} in {place} has {number} boxes of {other} parts and loses a third. Write the sum as "
            "code = followed by an expression of whole numbers without spaces in it. Expression only.",
            _arithmetic_grammar,
        ),
    ),
}


def load_cases(path: Path) -> list[Case]:
    """One JSON object a line: "prompt", and one of "json_schema", "regex", "choice" and "grammar".

    Other keys are left alone, empty lines are skipped. Raises WorkloadError naming the first wrong line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() also cuts at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"cannot read {path}") from error
    found = [_case(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise WorkloadError(f"{path} has no prompts", hint=f"one JSON object a line: prompt and {_one_of()}")
    return found


def _case(path: Path, number: int, line: str) -> Case:
    where = f"{path}, line {number}"
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{where} is no JSON: {error}") from error
    if (
        not isinstance(fields, dict)
        or not isinstance(fields.get("prompt"), str)
        or not fields["prompt"].strip()
    ):
        raise WorkloadError(f"{where} has no prompt", hint='it needs "prompt": "text"')
    keys = _KEYS.keys() & fields.keys()
    if len(keys) != 1:
        raise WorkloadError(f"{where} has {len(keys)} constraints", hint=f"it needs one of {_one_of()}")
    key = keys.pop()
    definition = tuple(fields[key]) if isinstance(fields[key], list) else fields[key]
    try:
        return Case(fields["prompt"], Constraint(_KEYS[key], definition, f"line-{number}"))
    except UsageError as error:
        raise WorkloadError(where) from error


def _one_of() -> str:
    return ", ".join(_KEYS)
