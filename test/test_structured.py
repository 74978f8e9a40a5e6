"""Constraints: what is sent, and that judgements tell the truth about answers."""

import json
import random
import re
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.errors import UsageError, WorkloadError
from aifbench.workloads import structured_judges
from aifbench.workloads.structured import Constraint, Kind
from aifbench.workloads.structured_cases import cases, load_cases
from aifbench.workloads.structured_judges import Validity
from aifbench.workloads.structured_language import UnreadableLanguage
from aifbench.workloads.structured_notations import gbnf_language, regex_language

KINDS = ("json", "regex", "choice", "grammar")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z]", "maxLength": 5},
        "level": {"enum": ["low", "high"]},
        "seen": {"type": "string", "format": "date"},
    },
    "required": ["name", "level"],
    "additionalProperties": False,
}


def validity(constraint: Constraint, text: str, *, by_length: bool = False) -> Validity:
    return constraint.judge(text, by_length).validity


class FieldsTest(unittest.TestCase):
    def test_styles(self) -> None:
        schema = Constraint(Kind.JSON, SCHEMA, "person")
        self.assertEqual({"structured_outputs": {"json": SCHEMA}}, schema.fields())
        wrapped = schema.fields("response_format")["response_format"]
        self.assertEqual("json_schema", wrapped["type"])
        self.assertEqual({"name": "person", "schema": SCHEMA, "strict": True}, wrapped["json_schema"])
        choice = Constraint(Kind.CHOICE, ("a", "b"))
        self.assertEqual({"structured_outputs": {"choice": ["a", "b"]}}, choice.fields())
        with self.assertRaises(UsageError):
            choice.fields("response_format")
        with self.assertRaises(UsageError):
            choice.fields("guided")

    def test_survives_json(self) -> None:
        for kind in KINDS:
            for case in cases(kind, 2, 5, unique=True):
                again = Constraint.from_json(json.loads(json.dumps(case.constraint.to_json())))
                self.assertEqual(case.constraint, again)

    def test_definitions_no_server_could_use(self) -> None:
        for kind, definition in (
            (Kind.JSON, "{}"), (Kind.CHOICE, ()), (Kind.CHOICE, ("a", 1)), (Kind.REGEX, "(a"),
            (Kind.REGEX, ""), (Kind.GRAMMAR, " \n"),
        ):  # fmt: skip
            with self.subTest(kind), self.assertRaises(UsageError):
                Constraint(kind, definition)
        with self.assertRaises(UsageError):
            Constraint(Kind.CHOICE, ("a",), "two words")

    def test_where_whitespace_can_run_on(self) -> None:
        self.assertTrue(Constraint(Kind.JSON, SCHEMA).whitespace_can_run_on)
        self.assertTrue(Constraint(Kind.JSON, {}).whitespace_can_run_on)
        self.assertFalse(Constraint(Kind.JSON, {"enum": ["a"]}).whitespace_can_run_on)
        self.assertFalse(Constraint(Kind.JSON, {"type": ["string", "null"]}).whitespace_can_run_on)
        self.assertFalse(Constraint(Kind.REGEX, "a *").whitespace_can_run_on)


class JsonTest(unittest.TestCase):
    constraint = Constraint(Kind.JSON, SCHEMA)

    def test_valid(self) -> None:
        for text in ('{"name":"Ada","level":"low"}', ' \n{ "level" : "high", "name": "B" }\n'):
            self.assertEqual(Validity.VALID, validity(self.constraint, text))
            self.assertEqual(Validity.VALID, validity(self.constraint, text, by_length=True))

    def test_every_keyword_counts(self) -> None:
        for text in (
            '{"name":"Ada"}',
            '{"name":"Ada","level":"middle"}',
            '{"name":"ada","level":"low"}',
            '{"name":"Adaaaa","level":"low"}',
            '{"name":1,"level":"low"}',
            '{"name":"Ada","level":"low","more":1}',
            '{"name":"Ada","level":"low","seen":"2026-13-01"}',
            '["Ada"]',
        ):
            judgement = self.constraint.judge(text, False)
            self.assertEqual(Validity.INVALID, judgement.validity, text)
            self.assertTrue(judgement.reason.startswith("$"), judgement.reason)

    def test_what_is_no_json(self) -> None:
        whole = '{"name":"Ada","level":"low"}'
        for text in (
            "",
            "Sure!",
            whole + " ok",
            f"```json\n{whole}\n```",
            whole[:-1],
            "{'a':1}",
            "NaN",
            "[1,]",
        ):
            self.assertEqual(Validity.INVALID, validity(self.constraint, text), text)

    def test_cut_is_what_could_have_become_json(self) -> None:
        whole = '{"name":"A\\u00e4\\n","level":"low"}'
        for end in range(len(whole)):
            self.assertEqual(
                Validity.CUT, validity(self.constraint, whole[:end], by_length=True), whole[:end]
            )
        for text in ('{"name" "', "Well, ", '{"a":1}}', '{"a":01', '{"a":"\n'):
            self.assertEqual(Validity.INVALID, validity(self.constraint, text, by_length=True), text)
        self.assertIn("40 of them whitespace", self.constraint.judge("{" + " " * 40, True).reason)

    def test_schemas_that_cannot_be_followed(self) -> None:
        for schema in ({"type": "text"}, {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "#/$defs/none"}):
            self.assertEqual(Validity.UNCHECKED, validity(Constraint(Kind.JSON, schema), "1"), schema)
        self.assertIn("not valid", Constraint(Kind.JSON, {"type": "text"}).obstacle())

    def test_without_the_package_it_says_what_to_install(self) -> None:
        structured_judges._judge_or_obstacle.cache_clear()
        self.addCleanup(structured_judges._judge_or_obstacle.cache_clear)
        with mock.patch.dict(sys.modules, {"jsonschema": None}):
            judgement = self.constraint.judge("{}", False)
        self.assertEqual(Validity.UNCHECKED, judgement.validity)
        self.assertIn("pip install jsonschema", judgement.reason)

    def test_hostile_answers(self) -> None:
        self.assertEqual(Validity.INVALID, validity(self.constraint, "[" * 5_000))
        self.assertEqual(Validity.INVALID, validity(self.constraint, "9" * 5_000))
        self.assertEqual(Validity.UNCHECKED, validity(self.constraint, " " * 30_000))


class ChoiceTest(unittest.TestCase):
    def test_judgements(self) -> None:
        constraint = Constraint(Kind.CHOICE, ("red", "dark red"))
        for text, by_length, expected in (
            ("red", False, Validity.VALID),
            (" dark red\n", True, Validity.VALID),
            ("Red", False, Validity.INVALID),
            ("red.", True, Validity.INVALID),
            ("dark", False, Validity.INVALID),
            ("dark", True, Validity.CUT),
            ("", True, Validity.CUT),
        ):
            self.assertEqual(expected, validity(constraint, text, by_length=by_length), text)


class RegexTest(unittest.TestCase):
    PATTERNS = (
        r"[0-9]{2}-[0-9]{1,2}", r"^(foo|ba[rz])?x*$", r"\d+\.\w{2,5}\s?", r"(?:ab|a)(c|bcd)(d*)",
        r"[^a-c\]]+.",
        r"a{,2}b?|", r"(a|b)*abb", r"x{2,}?y", r"[\w-]+@[a-z]+", r"((a|)b?){3}",
        r"\x61\u0062\|[\]a-]", r"a{b}",
        r"^a|b$", r"(?P<n>a)(?P<m>[^\d])",
    )  # fmt: skip

    def test_agrees_with_python(self) -> None:
        draw = random.Random(1)
        for pattern in self.PATTERNS:
            language = regex_language(pattern)
            alphabet = draw.choice(("abx0", "abcdfoxyrz019-.@ ]|{}\n")) + pattern
            for _ in range(150):
                text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(8)))
                expected = re.fullmatch(pattern, text) is not None
                self.assertEqual(expected, language.read(text).complete, (pattern, text))

    def test_every_beginning_of_a_match_is_one(self) -> None:
        constraint = Constraint(Kind.REGEX, r"(GET|PUT) /[a-z]{1,8}(\?n=[0-9]+)?")
        whole = "PUT /bucket?n=12"
        for end in range(len(whole)):
            text = whole[:end]
            expected = Validity.VALID if re.fullmatch(constraint.definition, text) else Validity.CUT
            self.assertEqual(expected, validity(constraint, text, by_length=True), text)
        self.assertEqual(Validity.INVALID, validity(constraint, "PUT /buckets9", by_length=True))
        self.assertIn("character 4 cannot be", constraint.judge("PUT: /", True).reason)

    def test_what_is_not_regular_is_not_judged(self) -> None:
        for pattern in (r"(a)\1", r"(?=a)b", r"(?i)a", r"\bword", r"a(^b)", r"(?<!x)a", "a{2000}"):
            constraint = Constraint(Kind.REGEX, pattern)
            self.assertEqual(Validity.UNCHECKED, validity(constraint, "a"), pattern)
            self.assertTrue(constraint.obstacle())

    def test_no_pattern_hangs(self) -> None:
        constraint = Constraint(Kind.REGEX, "(a+)+b")
        self.assertEqual(Validity.CUT, validity(constraint, "a" * 60, by_length=True))
        with mock.patch("aifbench.workloads.structured_language.MAX_STEPS", 10_000):
            self.assertEqual(Validity.UNCHECKED, validity(constraint, "a" * 5_000))


class GrammarTest(unittest.TestCase):
    def test_built_in_languages(self) -> None:
        sql, sums = (case.constraint for case in cases("grammar", 2, 1, unique=False))
        for constraint, text, expected in (
            (sql, "SELECT * FROM jobs", Validity.VALID),
            (sql, "SELECT id, name FROM nodes WHERE id = 12 AND state > 'up' LIMIT 5", Validity.VALID),
            (sql, "SELECT id FROM users", Validity.INVALID),
            (sql, "SELECT id FROM jobs;", Validity.INVALID),
            (sql, "SELECT id FR", Validity.INVALID),
            (sums, "code = 1+2*(3+(4/5))", Validity.VALID),
            (sums, "code = 007", Validity.INVALID),
            (sums, "code = (1+2", Validity.INVALID),
        ):
            self.assertEqual(expected, validity(constraint, text), text)
        self.assertEqual(Validity.CUT, validity(sql, "SELECT id FR", by_length=True))
        self.assertEqual(Validity.CUT, validity(sums, "code = (1+2", by_length=True))

    def test_recursion_and_empty_rules(self) -> None:
        language = gbnf_language('# balanced\nroot ::= "(" root ")" root | empty\nempty ::= ""')
        for text in ("", "()", "(()())()"):
            self.assertTrue(language.read(text).complete, text)
        self.assertFalse(language.read("(()").complete)
        self.assertEqual((3, 2), (language.read("(()").reached, language.read("())").reached))

    def test_grammars_that_are_not_understood(self) -> None:
        for grammar in (
            'root ::= other', 'start ::= "a"', 'root ::= "a', 'root ::= ("a"', 'root ::= "a")', 'root ::= *',
            'root ::= "a"\nroot ::= "b"', '"a" root ::= "b"', 'root ::= TOKEN(1)',
        ):  # fmt: skip
            with self.subTest(grammar), self.assertRaises(UnreadableLanguage):
                gbnf_language(grammar)
            self.assertEqual(Validity.UNCHECKED, validity(Constraint(Kind.GRAMMAR, grammar), "a"))

    def test_larks_notation_without_lark(self) -> None:
        with mock.patch.dict(sys.modules, {"lark": None}):
            constraint = Constraint(Kind.GRAMMAR, 'start: "a" | "b"')
            self.assertIn("pip install lark", constraint.obstacle())


class CasesTest(unittest.TestCase):
    def test_unique_constraints_all_differ_and_prompts_do_not(self) -> None:
        for kind in KINDS:
            common, unique = cases(kind, 40, 7, unique=False), cases(kind, 40, 7, unique=True)
            self.assertEqual([case.prompt for case in common], [case.prompt for case in unique])
            self.assertEqual(40, len({case.prompt for case in common}))
            self.assertEqual(40, len({str(case.constraint.definition) for case in unique}))
            self.assertLessEqual(len({str(case.constraint.definition) for case in common}), 2)
            other = {str(case.constraint.definition) for case in cases(kind, 40, 8, unique=True)}
            self.assertFalse(other & {str(case.constraint.definition) for case in unique})
            self.assertEqual(unique, cases(kind, 40, 7, unique=True))

    def test_every_built_in_constraint_can_be_judged(self) -> None:
        for kind in KINDS:
            for case in cases(kind, 12, 3, unique=True):
                self.assertEqual("", case.constraint.obstacle())

    def test_unknown_kind(self) -> None:
        with self.assertRaises(UsageError):
            cases("xml", 1, 1, unique=False)


class LoadCasesTest(unittest.TestCase):
    def load(self, *lines: str) -> list[object]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "cases.jsonl")
            path.write_text("\n".join(lines))
            return list(load_cases(path))

    def test_all_kinds(self) -> None:
        found = self.load(
            json.dumps({"prompt": "p", "json_schema": SCHEMA, "id": 4}),
            "",
            '{"prompt": "p", "regex": "a+"}',
            '{"prompt": "p", "choice": ["a", "b"]}',
            '{"prompt": "p", "grammar": "root ::= \\"a\\""}',
        )
        self.assertEqual(list(KINDS), [str(case.constraint.kind) for case in found])

    def test_bad_lines_are_named(self) -> None:
        good = '{"prompt": "p", "regex": "a"}'
        for bad in (
            "{", "[]", '{"regex": "a"}', '{"prompt": " ", "regex": "a"}', '{"prompt": "p"}',
            '{"prompt": "p", "regex": "a", "choice": ["a"]}', '{"prompt": "p", "regex": "("}',
            '{"prompt": "p", "choice": []}', '{"prompt": "p", "json_schema": [1]}',
            '{"prompt": "p", "grammar": 7}',
            '{"prompt": "p", "guided_regex": "a"}',
        ):  # fmt: skip
            with self.subTest(bad), self.assertRaisesRegex(WorkloadError, "line 2"):
                self.load(good, bad)

    def test_nothing_to_load(self) -> None:
        with self.assertRaises(WorkloadError):
            self.load("", " ")
        with self.assertRaises(WorkloadError):
            load_cases(Path("/no/such/file.jsonl"))


if __name__ == "__main__":
    unittest.main()
