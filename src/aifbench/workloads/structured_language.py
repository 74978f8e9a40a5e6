"""Is a text in a context-free language, the beginning of one that is, or neither?

Earley's recogniser (CACM 13(2), 1970) over single characters, with Aycock and Horspool's treatment of empty
rules (The Computer Journal 45(6), 2002). It answers all three in one pass without backtracking, in a bounded
number of steps, and reads regular expressions as it reads grammars. It shares nothing with the libraries
that constrain generation in servers, so it can contradict them.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_REPEAT = 1_000
MAX_STEPS = 1_000_000  # of one reading, a few seconds; an answer of 300 characters takes some thousands


class UnreadableLanguage(Exception):
    """A pattern or grammar uses what is not understood here, or takes too long to follow; says what."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character: of the ranges (inclusive code points), or of none of them when negated."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def holds(self, code: int) -> bool:
        return any(low <= code <= high for low, high in self.ranges) != self.negated


Symbol = Chars | str  # a character to read, or the name of a rule
Phrase = tuple[Symbol, ...]


def literal(text: str) -> Phrase:
    return tuple(Chars(((ord(char), ord(char)),)) for char in text)


@dataclass(frozen=True, slots=True)
class Reading:
    """`reached` characters could begin a text of the language; `complete`: all of them are one."""

    reached: int
    complete: bool


@dataclass(slots=True)
class Language:
    """Rules by name; a rule that never ends (x ::= "a" x) makes `reached` too hopeful."""

    root: str = "root"
    _productions: list[tuple[str, Phrase]] = field(default_factory=list)
    _of: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _nullable: frozenset[str] | None = None

    def define(self, name: str, phrases: Iterable[Phrase]) -> str:
        for phrase in phrases:
            self._of[name].append(len(self._productions))
            self._productions.append((name, phrase))
        return name

    def either(self, phrases: Iterable[Phrase]) -> str:
        """A new rule for one of the phrases; rule names that begin with a digit are its own."""
        return self.define(f"{len(self._productions)}", phrases)

    def repeated(self, phrase: Phrase, low: int, high: int | None) -> Phrase:
        """Raises UnreadableLanguage for counts that would make the rules too many."""
        if max(low, high or 0) > MAX_REPEAT or (high is not None and high < low):
            raise UnreadableLanguage(f"repetition {{{low},{'' if high is None else high}}}")
        once = self.either([phrase])
        if high is None:
            name = f"{once}*"
            more: Phrase = (self.define(name, [(), (name, once)]),)  # left-recursive: linear time
        else:
            more = ()
            for _ in range(high - low):
                more = (self.either([(), (*more, once)]),)
        return (once,) * low + more

    def undefined(self) -> set[str]:
        used = {symbol for _, phrase in self._productions for symbol in phrase if isinstance(symbol, str)}
        return (used | {self.root}) - self._of.keys()

    def read(self, text: str) -> Reading:
        """Raises UnreadableLanguage when the rules are so ambiguous that MAX_STEPS do not suffice."""
        if self._nullable is None:
            self._nullable = self._find_nullable()
        items = [(production, 0, 0) for production in self._of[self.root]]
        waiting: list[defaultdict[str, list[_Item]]] = []
        steps = 0
        for position in range(len(text) + 1):
            waiting.append(defaultdict(list))
            complete, characters = self._close(items, waiting)
            steps += len(items)
            if steps > MAX_STEPS:
                raise UnreadableLanguage(f"too ambiguous to follow beyond character {position}")
            if position == len(text):
                return Reading(position, complete)
            code = ord(text[position])
            items = [(p, dot + 1, origin) for chars, (p, dot, origin) in characters if chars.holds(code)]
            if not items:
                break
        return Reading(position, False)

    def _close(
        self, items: "list[_Item]", waiting: "list[defaultdict[str, list[_Item]]]"
    ) -> "tuple[bool, list[tuple[Chars, _Item]]]":
        """Follows rules from `items` at the last position of `waiting` without reading a character.

        Returns whether the whole text so far is complete, and the items that wait for a character.
        """
        seen, complete, characters = set(items), False, []
        for item in items:  # grows on the way
            production, dot, origin = item
            name, phrase = self._productions[production]
            if dot == len(phrase):
                complete |= name == self.root and origin == 0
                follow = [(p, d + 1, o) for p, d, o in waiting[origin][name]]
            elif isinstance(symbol := phrase[dot], Chars):
                characters.append((symbol, item))
                continue
            else:
                here = len(waiting) - 1
                waiting[here][symbol].append(item)
                follow = [(p, 0, here) for p in self._of[symbol]]
                if symbol in (self._nullable or ()):
                    follow.append((production, dot + 1, origin))
            new = [each for each in follow if each not in seen]
            seen.update(new)
            items.extend(new)
        return complete, characters

    def _find_nullable(self) -> frozenset[str]:
        found: set[str] = set()
        while True:
            more = {name for name, phrase in self._productions if found.issuperset(phrase)} - found
            if not more:
                return frozenset(found)
            found |= more


_Item = tuple[int, int, int]  # production, how much of it was read, and the position where it began
