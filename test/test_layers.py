"""The walls of the architecture: a module imports only from lower ranks or from its own folder."""

import ast
import re
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

PACKAGE = Path(__file__).resolve().parents[1] / "src/aifbench"
RANKS = {
    "errors": 0, "units": 0, "config": 0, "options": 0, "clock": 0,
    "stats": 1, "cluster": 1,
    "load": 2,
    "results": 3, "workloads": 3,
    "servers": 4, "studies": 4, "monitor": 4, "report": 4, "doctor": 4, "eventlog": 4,
    "session": 5,
    "repl": 6,
    "__main__": 7,
}  # fmt: skip
# Imported where they are used, for the prompt's sake.
HEAVY = {
    "boto3",
    "botocore",
    "chromadb",
    "faiss",
    "h5py",
    "jsonschema",
    "lark",
    "numpy",
    "openai",
    "openlit",
    "opentelemetry",
    "psycopg",
    "pyarrow",
    "tokenizers",
    "transformers",
}
SERVICE_NAME = re.compile(
    r"chroma|vllm|triton|ollama|qdrant|milvus|weaviate|postgres|minio|garage|lustre|grafana|prometheus",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement: `target` is a dotted module name, or that of something in a module."""

    module: str
    line: int
    target: str
    at_import_time: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.target}"


def module_name(path: Path) -> str:
    parts = ["aifbench", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [f"{node.module}.{name.name}" for name in node.names]
    return []


def is_for_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_below(node: ast.AST, module: str, *, at_import_time: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_typing_only(child)
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in targets(child):
                yield Import(module, child.lineno, target, at_import_time)
        yield from imports_below(child, module, at_import_time=at_import_time and not deferred)


@cache
def imports() -> dict[str, list[Import]]:
    """Every import of every module of the package."""
    return {
        module_name(path): list(
            imports_below(ast.parse(path.read_text()), module_name(path), at_import_time=True)
        )
        for path in PACKAGE.rglob("*.py")
    }


def room(name: str) -> str:
    """The folder (or module beside the folders) that a dotted name is in; empty for the package itself."""
    first = name.split(".")[1:2]
    return first[0] if first and any(PACKAGE.glob(f"{first[0]}*")) else ""


class _Docstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        return ast.Pass() if isinstance(node.value, ast.Constant) else node


def without_docstrings(source: str) -> str:
    """The code alone: an example in a docstring may be of a service."""
    return ast.unparse(_Docstrings().visit(ast.parse(source)))


class Layers(unittest.TestCase):
    def test_every_module_has_a_rank(self) -> None:
        self.assertEqual({room(module) for module in imports()} - RANKS.keys() - {""}, set())

    def test_no_module_imports_from_a_higher_rank_or_a_neighbours_folder(self) -> None:
        wrong = [str(used) for used in self.inner_imports() if not self.is_allowed(used)]
        self.assertEqual(wrong, [])

    def inner_imports(self) -> Iterator[Import]:
        for module, used in imports().items():
            if room(module):  # the package's own __init__ is its face and may show anything
                yield from (
                    each for each in used if each.target.startswith("aifbench.") and room(each.target)
                )

    def is_allowed(self, used: Import) -> bool:
        here, there = room(used.module), room(used.target)
        return here == there or RANKS[there] < RANKS[here] or RANKS[there] == RANKS[here] == 0

    def test_imports_are_absolute(self) -> None:
        relative = [
            f"{module_name(path)}, line {node.lineno}"
            for path in PACKAGE.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level
        ]
        self.assertEqual(relative, [])

    def test_load_statistics_and_reports_name_no_service(self) -> None:
        named = [
            f"{path.relative_to(PACKAGE)}: {line.strip()}"
            for folder in ("load", "stats", "report")
            for path in (PACKAGE / folder).rglob("*.py")
            for line in without_docstrings(path.read_text()).splitlines()
            if SERVICE_NAME.search(line)
        ]
        self.assertEqual(named, [])

    def test_the_bare_prompt_imports_nothing_heavy(self) -> None:
        """Follows imports from the shell; a test beside the shell measures the same in a running one."""
        chains = {"aifbench.repl.app": "the shell"}
        waiting = list(chains)
        heavy = []
        while waiting:
            module = waiting.pop()
            for used in (each for each in imports()[module] if each.at_import_time):
                chain = f"{chains[module]} > {module}"
                if used.target.split(".")[0] in HEAVY:
                    heavy.append(f"{chain} > {used.target}")
                for found in self.modules_run_by(used.target) - chains.keys():
                    chains[found] = chain
                    waiting.append(found)
        self.assertEqual(heavy, [])

    def modules_run_by(self, target: str) -> set[str]:
        """The package's modules that importing a dotted name runs: its parents, and itself if it is one."""
        parts = target.split(".")
        return {".".join(parts[:end]) for end in range(1, len(parts) + 1)} & imports().keys()


if __name__ == "__main__":
    unittest.main()
