"""One judge per kind of constraint: from the definition and an answer to what can be said of it."""

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from aifbench.workloads.structured_language import Language, UnreadableLanguage
from aifbench.workloads.structured_notations import gbnf_language, regex_language

MAX_CHARS = 20_000  # of an answer: about 5,000 tokens, some seconds of work for the slowest judge
_SHOWN_CHARS = 24
_JSON_BLANK = " \t\n\r"
_JSON_GRAMMAR = r"""
root ::= space value space
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" space (member ("," space member)*)? "}"
member ::= string space ":" space value space
array ::= "[" space (value space ("," space value space)*)? "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9A-Fa-f]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [+-]? [0-9]+)?
space ::= [ \t\n\r]*
"""


class Validity(StrEnum):
    """CUT: the tokens ran out, and what there is could have become valid as far as can be told."""

    VALID = "valid"
    INVALID = "invalid"
    CUT = "cut"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reason` is one line, empty for VALID."""

    validity: Validity
    reason: str = ""


_Judge = Callable[[str, bool], Judgement]
_VALID = Judgement(Validity.VALID)


class _CannotJudge(Exception):
    """Says why, with the remedy."""


def judge(kind: str, definition: str, text: str, finished_by_length: bool) -> Judgement:
    """`definition`: pattern or grammar; the JSON text of a schema or of a list of choices."""
    if len(text) > MAX_CHARS:
        return Judgement(Validity.UNCHECKED, f"{len(text):,} characters are more than {MAX_CHARS:,}")
    found = _judge_or_obstacle(kind, definition)
    if isinstance(found, str):
        return Judgement(Validity.UNCHECKED, found)
    try:
        return found(text, finished_by_length)
    except UnreadableLanguage as error:
        return Judgement(Validity.UNCHECKED, str(error))


def obstacle(kind: str, definition: str) -> str:
    found = _judge_or_obstacle(kind, definition)
    return found if isinstance(found, str) else ""


@lru_cache(maxsize=64)
def _judge_or_obstacle(kind: str, definition: str) -> _Judge | str:
    try:
        return _JUDGES[kind](definition)
    except _CannotJudge as error:
        return str(error)
    except UnreadableLanguage as error:
        return f"not understood: {error}"


def _choice_judge(definition: str) -> _Judge:
    choices = {choice.strip() for choice in json.loads(definition)}

    def judge_choice(text: str, finished_by_length: bool) -> Judgement:
        answer = text.strip()
        if answer in choices:
            return _VALID
        if finished_by_length and any(choice.startswith(answer) for choice in choices):
            return _cut(text)
        return Judgement(Validity.INVALID, f"{_shown(answer)} is none of {len(choices)} choices")

    return judge_choice


def _regex_judge(definition: str) -> _Judge:
    return _language_judge(regex_language(definition))


def _grammar_judge(definition: str) -> _Judge:
    """A grammar without `::=` is in Lark's notation, as vLLM sees it too."""
    return _language_judge(gbnf_language(definition)) if "::=" in definition else _lark_judge(definition)


def _language_judge(language: Language) -> _Judge:
    def judge_language(text: str, finished_by_length: bool) -> Judgement:
        reading = language.read(text)
        if reading.complete:
            return _VALID
        if reading.reached < len(text):
            return _breaks_at(text, reading.reached)
        return _cut(text) if finished_by_length else Judgement(Validity.INVALID, "it ends too early")

    return judge_language


def _lark_judge(definition: str) -> _Judge:
    lark = _module("lark", "a grammar in Lark's notation")
    try:
        parser = lark.Lark(definition, parser="earley")
    except lark.exceptions.LarkError as error:
        raise _CannotJudge(f"lark does not understand the grammar: {_first_line(error)}") from error

    def judge_lark(text: str, finished_by_length: bool) -> Judgement:
        try:
            parser.parse(text)
        except (lark.exceptions.LarkError, RecursionError) as error:
            if isinstance(error, lark.exceptions.UnexpectedEOF) and finished_by_length:
                return _cut(text)
            if finished_by_length:  # a terminal that is cut looks like a wrong one
                return Judgement(Validity.UNCHECKED, "lark cannot tell a cut answer from a wrong one")
            return Judgement(Validity.INVALID, _first_line(error))
        return _VALID

    return judge_lark


def _json_judge(definition: str) -> _Judge:
    jsonschema = _module("jsonschema", "a JSON schema")
    referencing = _module("referencing", "a JSON schema")
    validator = _validator(jsonschema, referencing.Registry(), json.loads(definition))

    def judge_json(text: str, finished_by_length: bool) -> Judgement:
        try:
            value = json.loads(text.strip(_JSON_BLANK), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as defect:
            reading = _json_syntax().read(text)
            if finished_by_length and reading.reached == len(text):
                return _cut(text)
            return Judgement(Validity.INVALID, f"no JSON: {_first_line(defect)}")
        try:
            error = jsonschema.exceptions.best_match(validator.iter_errors(value))
        except (referencing.exceptions.Unresolvable, RecursionError, re.error) as defect:
            return Judgement(Validity.UNCHECKED, f"the schema cannot be followed: {_first_line(defect)}")
        if error is None:
            return _VALID
        return Judgement(Validity.INVALID, f"{error.json_path}: {_first_line(error)}")

    return judge_json


def _validator(jsonschema: Any, empty_registry: Any, schema: dict[str, Any]) -> Any:
    """Of the draft the schema names; formats count; what a schema refers to by URL is never fetched."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _CannotJudge(f"the schema is not valid: {_first_line(error)}") from error
    return kind(schema, registry=empty_registry, format_checker=kind.FORMAT_CHECKER)


@lru_cache(maxsize=1)
def _json_syntax() -> Language:
    return gbnf_language(_JSON_GRAMMAR)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _module(name: str, needed_for: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = "jsonschema" if name == "referencing" else name
        raise _CannotJudge(f"{needed_for} needs {package} to be checked: pip install {package}") from error


def _cut(text: str) -> Judgement:
    blank = len(text) - len(text.rstrip())
    runaway = f", the last {blank} of them whitespace" if blank > len(text) / 2 else ""
    return Judgement(Validity.CUT, f"out of tokens after {len(text)} characters{runaway}")


def _breaks_at(text: str, place: int) -> Judgement:
    return Judgement(Validity.INVALID, f"character {place + 1} cannot be: {_shown(text[place:])}")


def _shown(text: str) -> str:
    return repr(text[:_SHOWN_CHARS]) + ("..." if len(text) > _SHOWN_CHARS else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


_JUDGES: dict[str, Callable[[str], _Judge]] = {
    "json": _json_judge,
    "regex": _regex_judge,
    "choice": _choice_judge,
    "grammar": _grammar_judge,
}
