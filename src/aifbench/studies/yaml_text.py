"""YAML text to plain nodes that know their line: text stays as it was typed, and nothing is ever constructed.

So `no`, `1:30`, `007` and `1e3` mean what an option makes of them, not what YAML would. Imports yaml, so
import this module where it is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from aifbench.errors import UsageError

MAX_SIZE_BYTES = 1 << 20
# Far more than a recipe needs; a file that expands (aliases) or digs (brackets) must not fill the memory.
MAX_NODES = 10_000
MAX_DEPTH = 20

_STANDARD = "tag:yaml.org,2002:"
_TAGS = {
    _STANDARD + tag for tag in ("str", "int", "float", "bool", "null", "timestamp", "value", "map", "seq")
}
_NULL = _STANDARD + "null"
_MERGE = _STANDARD + "merge"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: its text without quotes; `is_null` for nothing, `null` and `~`."""

    line: int
    text: str
    is_null: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    line: int
    nodes: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Keys with the line that each is on."""

    line: int
    nodes: dict[str, "Node"]
    key_lines: dict[str, int]


Node = Scalar | Items | Table


def located(file: str, line: int, message: str, hint: str = "") -> UsageError:
    return UsageError(f"{file}, line {line}: {message}", hint=hint)


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file. Raises UsageError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_SIZE_BYTES:
        raise UsageError(f"{path} is larger than 1 MiB", hint="a recipe is a page of YAML")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise located(str(path), line, "this is not UTF-8 text", hint="a recipe is a page of YAML") from None


def parse_yaml(text: str, file: str) -> Node:
    """The one document in `text`; `file` is for messages. Raises UsageError with file and line."""
    try:
        root = _Loader(text, file).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise located(file, line, f"this is not YAML: {message}", _advice(message)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise located(file, line, f"the character {error.character!r} cannot be in a YAML file") from None
    if root is None:
        raise UsageError(f"{file} is empty", hint="`recipe new NAME` writes one to begin with")
    return _Converter(file).node(root, depth=0)


def _advice(message: str) -> str:
    if "'\\t'" in message:
        return "indent with spaces, not with tabs"
    if "expected a single document" in message:
        return "one recipe a file: remove the line ---"
    return "keys are `key: value`, values with : or # need quotes"


class _Loader(yaml.SafeLoader):
    """Composes nodes only, and stops early at what is no recipe."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self._file = file
        self._made = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._made += 1
        self._depth += 1
        if self._made > 2 * MAX_NODES or self._depth > MAX_DEPTH:  # keys are nodes too
            raise _too_much(self._file, parent.start_mark.line + 1 if parent else 1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Converter:
    """Nodes of yaml to ours; an alias counts as often as it is used."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._made = 0

    def node(self, node: yaml.Node, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._made += 1
        if self._made > MAX_NODES or depth > MAX_DEPTH:
            raise _too_much(self._file, line)
        if node.tag not in _TAGS:
            raise located(self._file, line, f"the tag {_short(node.tag)} is not supported", "remove it")
        if isinstance(node, yaml.SequenceNode):
            return Items(line, tuple(self.node(each, depth + 1) for each in node.value))
        if isinstance(node, yaml.MappingNode):
            return self._table(node, depth)
        assert isinstance(node, yaml.ScalarNode)
        return Scalar(line, str(node.value), is_null=node.tag == _NULL and node.style is None)

    def _table(self, node: yaml.MappingNode, depth: int) -> Table:
        nodes: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        for key, line, value in self._entries(node):
            if key in nodes:
                message = f"`{key}` is given twice, first in line {key_lines[key]}"
                raise located(self._file, line, message, "keep one of them")
            nodes[key] = self.node(value, depth + 1)
            key_lines[key] = line
        return Table(node.start_mark.line + 1, nodes, key_lines)

    def _entries(self, node: yaml.MappingNode) -> Iterator[tuple[str, int, yaml.Node]]:
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                raise located(self._file, line, "`<<` is not supported", "write the keys out")
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                raise located(self._file, line, "a key must be a word", "keys are `key: value`")
            yield key.value, line, value


def _too_much(file: str, line: int) -> UsageError:
    return located(
        file,
        line,
        f"more than {MAX_NODES:,} values (aliases counted each time), or more than {MAX_DEPTH} levels",
        "a recipe is a page of YAML",
    )


def _short(tag: str) -> str:
    return tag.replace(_STANDARD, "!!")
