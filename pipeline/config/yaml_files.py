"""YAML files as plain data, with the line of each value.

Values have the types of YAML 1.2's core schema, with which DVC reads the same files. So `1e-4` is a
number, and `2026-11-29`, `12:30` and `no` are texts. A file of options has no need of other types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPTH = 50  # of values within values
VALUES = 100_000  # of a file, an alias counted as what it stands for
DIGITS = 300  # of a whole number, which then is also a float

PREFIX = "tag:yaml.org,2002:"
TYPES = ("null", "bool", "int", "float", "str", "seq", "map", "merge")

Place = tuple[str | int, ...]
"""Names and numbers that lead to a value."""


class Document(NamedTuple):
    """The content of a YAML file.

    Attributes:
        content: plain data.
        lines: of each value, from 1, by the value's place.
    """

    content: Any
    lines: dict[Place, int]

    def find_line(self, place: Place) -> int:
        """Return the line of a value, or of the nearest value around a place that has none.

        A place may hold further names, such as pydantic's of a type. These are passed over.
        """
        nearest: Place = ()
        for step in place:
            if (*nearest, step) in self.lines:
                nearest = (*nearest, step)
        return self.lines.get(nearest, 1)


class _Loader(yaml.SafeLoader):
    """The types of YAML 1.2 (Section 10.3.2), and `<<`, which merges mappings."""


_Loader.yaml_implicit_resolvers = {}  # SafeLoader has those of YAML 1.1

_NUMBER = (
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_PATTERNS: dict[str, re.Pattern[str]] = {}
"""How the values of a type are written, by the tag of the type."""
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", _NUMBER, "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _tag = PREFIX + _name
    _PATTERNS[_tag] = re.compile(f"^(?:{_pattern})$")
    # The first letter of a value chooses the patterns that are tried. "" is the empty value.
    _Loader.add_implicit_resolver(_tag, _PATTERNS[_tag], [*_first, ""])
# PyYAML's own reads 010 as 8.
_Loader.add_constructor(f"{PREFIX}int", lambda _, node: int(node.value))


def read_yaml(path: Path) -> Document:
    """Return the content of a YAML file.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is no YAML, a name stands there twice, or a value is nested too
            deeply, of another type, or one that no path or float holds; one line, with the number
            of the line.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file: put a YAML file there")
    content = path.read_bytes()
    try:
        loader = _Loader(content)
        root = loader.get_single_node()
        if root is None:
            return Document(None, {})
        lines = dict(islice(_walk(root, loader, ()), VALUES + 1))
        if len(lines) > VALUES:
            raise ValueError(f"it holds more than {VALUES:,} values, counting aliases")
        return Document(loader.construct_document(root), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = error.problem or error.context
        if isinstance(error, yaml.composer.ComposerError) and error.context:
            problem = f"{error.context}, {error.problem}"  # "expected a ..., but found another"
        raise ValueError(f"{path}{line}: {problem}") from error
    except RecursionError:
        raise ValueError(f"{path} is nested more than {DEPTH} deep: flatten the file") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _walk(node: yaml.Node, loader: _Loader, place: Place) -> Iterator[tuple[Place, int]]:
    """Yield the place and the line of each value, and refuse what no file of options holds."""
    yield place, node.start_mark.line + 1
    if len(place) > DEPTH:
        raise _problem(f"values are nested more than {DEPTH} deep: flatten them", node)
    if node.tag.removeprefix(PREFIX) not in TYPES:
        raise _problem(f"the type {node.tag} is unknown: leave out the tag", node)
    _refuse_misfit(node)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _walk(item, loader, (*place, number))
    elif isinstance(node, yaml.MappingNode):
        first: dict[Any, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.removeprefix(PREFIX) not in TYPES:
                raise _problem("a name must be a text or a number", key)
            _refuse_misfit(key)
            merges = key.tag == f"{PREFIX}merge"
            name = key.value if merges else loader.construct_object(key)
            if name in first:
                raise _problem(
                    f"{key.value!r} stands in line {first[name]} already: keep a single value", key
                )
            first[name] = key.start_mark.line + 1
            yield from _walk(value, loader, place if merges else (*place, name))


def _refuse_misfit(node: yaml.Node) -> None:
    """Refuse what is not written as the type of its tag, or what no file or float can hold."""
    pattern = _PATTERNS.get(node.tag)
    if pattern and not (isinstance(node, yaml.ScalarNode) and pattern.fullmatch(node.value)):
        name = node.tag.removeprefix(PREFIX)
        raise _problem(f"the value is no {name}: correct the value or leave out !!{name}", node)
    if not isinstance(node, yaml.ScalarNode):
        return
    if node.tag == f"{PREFIX}int" and len(node.value.lstrip("+-0")) > DIGITS:
        raise _problem(f"the number has more than {DIGITS} digits: give a smaller one", node)
    if not _is_storable(node.value):
        raise _problem(
            r"a text holds \0 or half a surrogate pair, such as \ud800: leave that out", node
        )


def _is_storable(text: str) -> bool:
    """Whether a path may hold a text, and a file in UTF-8."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _problem(text: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)
