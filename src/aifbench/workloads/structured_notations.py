r"""Regular expressions and GBNF grammars, read into a Language.

Both are alternatives of sequences of repeated atoms; they differ only in how atoms are written. The reading
follows Python's `re` (whole text) and the `::=` grammars of llama.cpp and xgrammar. `\d` and `\w` are ASCII,
as in ECMAScript. Look-around, back-references, word boundaries and flags are not understood.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from aifbench.workloads.structured_language import Chars, Language, Phrase, UnreadableLanguage, literal


@dataclass(frozen=True, slots=True)
class _Atom:
    phrase: Phrase


@dataclass(frozen=True, slots=True)
class _Repeat:
    low: int
    high: int | None


_Token = _Atom | _Repeat | str  # str: "(", ")" or "|"

_SET = r"\[\^?\]?(?:[^\]\\]|\\.)*\]"
_ESCAPE = r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)"
_COUNT = r"[*+?]|\{\d+(?:,\d*)?\}|\{,\d+\}"
_NEXT_COUNT = re.compile(_COUNT)
_REGEX_TOKEN = re.compile(
    rf"(?P<set>{_SET})|(?P<escape>{_ESCAPE})|(?P<count>(?:{_COUNT})\??)"
    r"|(?P<open>\((?:\?(?::|P?<[A-Za-z_]\w*>))?)|(?P<mark>[)|])|(?P<edge>[\^$])|(?P<char>.)",
    re.DOTALL,
)
_GBNF_TOKEN = re.compile(
    r"(?P<blank>\s+|\#[^\n]*)|(?P<define>[A-Za-z_][\w.-]*(?=\s*::=))|(?P<is>::=)"
    rf'|(?P<name>[A-Za-z_][\w.-]*)|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<set>{_SET})'
    rf"|(?P<count>{_COUNT})|(?P<mark>[()|])"
)
_SET_PART = re.compile(rf"({_ESCAPE}|[^\\])(?:-({_ESCAPE}|[^\\]))?", re.DOTALL)
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_CLASSES = {
    "d": Chars(((48, 57),)),
    "w": Chars(((48, 57), (65, 90), (95, 95), (97, 122))),
    "s": Chars(((9, 13), (32, 32), (160, 160))),
}
_ANY = Chars(((10, 10),), negated=True)


def regex_language(pattern: str) -> Language:
    """Raises UnreadableLanguage for constructs outside of regular languages."""
    language = Language()
    language.define("root", _alternatives(language, _regex_tokens(pattern)))
    return language


def gbnf_language(grammar: str) -> Language:
    """Raises UnreadableLanguage for other notations and for rules that are not defined."""
    language, rules = Language(), _gbnf_rules(grammar)
    for name, tokens in rules.items():
        language.define(name, _alternatives(language, iter(tokens)))
    if missing := language.undefined():
        raise UnreadableLanguage(f"no rule for {', '.join(sorted(missing))}")
    return language


def _alternatives(language: Language, tokens: Iterator[_Token], depth: int = 0) -> list[Phrase]:
    """Consumes tokens up to the closing parenthesis of this depth, or to the end at depth 0."""
    done: list[Phrase] = []
    parts: list[Phrase] = []
    for token in tokens:
        match token:
            case "|" | ")":
                done.append(_joined(parts))
                parts = []
                if token == ")":
                    break
            case "(":
                parts.append((language.either(_alternatives(language, tokens, depth + 1)),))
            case _Repeat(low, high):
                if not parts:
                    raise UnreadableLanguage("a repetition of nothing")
                parts.append(language.repeated(parts.pop(), low, high))
            case _Atom(phrase):
                parts.append(phrase)
    else:
        if depth:
            raise UnreadableLanguage("an open parenthesis")
        return [*done, _joined(parts)]
    if not depth:
        raise UnreadableLanguage("a closing parenthesis too many")
    return done


def _joined(parts: list[Phrase]) -> Phrase:
    return tuple(symbol for part in parts for symbol in part)


def _regex_tokens(pattern: str) -> Iterator[_Token]:
    depth, before = 0, "|"
    for match in _REGEX_TOKEN.finditer(pattern):
        text, kind = match[0], match.lastgroup
        if kind == "edge":
            # They say nothing at the ends of a whole text; anywhere else they would.
            if depth or (before if text == "^" else pattern[match.end() :][:1] or "|") != "|":
                raise UnreadableLanguage(f"{text} inside of a pattern")
        elif kind == "open":
            if pattern[match.end() :].startswith("?"):
                raise UnreadableLanguage(f"the group {pattern[match.start() :][:4]}")
            depth += 1
            yield "("
        elif kind == "mark":
            depth -= text == ")"
            yield text
        elif kind == "count":
            if _NEXT_COUNT.match(pattern, match.end()):
                raise UnreadableLanguage(f"a repetition of the repetition {text}")
            yield _repeat(text)
        else:
            yield _Atom((_regex_char(text, str(kind)),))
        before = "|" if text == "|" else ""


def _regex_char(text: str, kind: str) -> Chars:
    if kind == "set":
        return _char_set(text)
    if kind == "escape":
        return _escaped(text)
    return _ANY if text == "." else Chars(((ord(text), ord(text)),))


def _gbnf_rules(grammar: str) -> dict[str, list[_Token]]:
    rules: dict[str, list[_Token]] = {}
    tokens: list[_Token] = []
    place = 0
    while place < len(grammar):
        match = _GBNF_TOKEN.match(grammar, place)
        if match is None:
            raise UnreadableLanguage(f"{grammar[place : place + 12]!r} in line {_line(grammar, place)}")
        place, text, kind = match.end(), match[0], match.lastgroup
        if kind == "define":
            tokens = []
            if rules.setdefault(text, tokens) is not tokens:
                raise UnreadableLanguage(f"two rules {text} (line {_line(grammar, place)})")
        elif not rules:
            if kind != "blank":
                raise UnreadableLanguage(f"{text} before the first rule")
        elif kind not in ("blank", "is"):
            tokens.append(_gbnf_token(text, str(kind)))
    return rules


def _gbnf_token(text: str, kind: str) -> _Token:
    match kind:
        case "name":
            return _Atom((text,))
        case "string":
            return _Atom(literal(_unescaped(text[1:-1])))
        case "set":
            return _Atom((_char_set(text),))
        case "count":
            return _repeat(text)
        case _:
            return text


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _repeat(text: str) -> _Repeat:
    if text[0] in "*+?":
        return _Repeat(int(text[0] == "+"), 1 if text[0] == "?" else None)
    low, comma, high = text.strip("{}?").partition(",")
    return _Repeat(int(low or 0), int(high) if high else None if comma else int(low))


def _char_set(text: str) -> Chars:
    """A bracketed set such as [^a-z\\n]."""
    negated = text.startswith("[^")
    ranges: list[tuple[int, int]] = []
    for match in _SET_PART.finditer(text[2:-1] if negated else text[1:-1]):
        first, last = match[1], match[2]
        ends = [
            _escaped(end) if len(end) > 1 else Chars(((ord(end), ord(end)),))
            for end in (first, last or first)
        ]
        if any(end.negated for end in ends) or (last and any(len(end.ranges) != 1 for end in ends)):
            raise UnreadableLanguage(f"{match[0]} in a set")
        low, high = ends[0].ranges, ends[1].ranges
        ranges.extend([(low[0][0], high[0][1])] if last else low)
    return Chars(tuple(ranges), negated)


def _escaped(text: str) -> Chars:
    r"""An escape sequence such as \n, \x41 or \d."""
    letter = text[1]
    if letter.lower() in _CLASSES:
        known = _CLASSES[letter.lower()]
        return Chars(known.ranges, letter.isupper())
    code = ord(_unescaped(text))
    return Chars(((code, code),))


def _unescaped(text: str) -> str:
    return re.sub(_ESCAPE, lambda match: _escape_char(match[0]), text, flags=re.DOTALL)


def _escape_char(text: str) -> str:
    if len(text) > 2:
        return chr(int(text[2:], 16))
    if text[1] in _CONTROL:
        return _CONTROL[text[1]]
    if text[1].isalnum():
        raise UnreadableLanguage(f"the escape {text}")
    return text[1]
