"""The documents as tests read them: their blocks of code, their commands, and their marks.

A mark is a comment in the source of a page. The mark ends the text before a block, or follows a
command in a sentence, and says who ran the command:

    <!--run:2026-11-29-->    run by hand, on this day
    <!--test:test_use-->     run by tests/test_use.py
    <!--needs:Docker-->      not run: needs what is not there
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

COMMANDS = ("sh", "")  # languages of blocks of commands: "" is an indented block
MARK = re.compile(r"<!--(run|test|needs):([\w.-]+)-->")
Marks = tuple[tuple[str, str], ...]  # kind and content of each
PLACEHOLDER = "PLACEHOLDER"  # stands for <name> in a command


class Block(NamedTuple):
    """A block of code.

    Attributes:
        page: its path in the project.
        line: where the block begins.
        language: of a fence, or "" of an indented block.
        text: without fence and indentation.
        marks: kind and content of the marks directly before the block.
    """

    page: str
    line: int
    language: str
    text: str
    marks: Marks


class Span(NamedTuple):
    """Code in a sentence, with the marks directly behind."""

    text: str
    marks: Marks


def read_page(path: Path) -> tuple[list[Block], list[Span]]:
    """The blocks of code of a page, and the code in its sentences."""
    blocks, sentences = [], []
    lines = path.read_text().splitlines()
    start = 0
    while start < len(lines):
        line, end = lines[start], start + 1
        before = next((each for each in reversed(lines[:start]) if each), "")
        if line.startswith("```"):
            while lines[end] != "```":
                end += 1
            language, body, end = line[3:], lines[start + 1 : end], end + 1
        elif line.startswith("    ") and not (start and lines[start - 1]):
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                end += 1
            language, body = "", [each[4:] for each in lines[start:end]]
        else:
            sentences.append(line)
            start = end
            continue
        end_of_text = re.search(rf"(?<!`)((?:{MARK.pattern})+)$", before)
        marks = MARK.findall(end_of_text[1]) if end_of_text else []
        text = "\n".join(body).rstrip() + "\n"
        page = str(path.relative_to(ROOT))
        blocks.append(Block(page, start + 1, language, text, tuple(marks)))
        start = end
    spans = re.findall(rf"(`+)(.+?)\1((?:{MARK.pattern})*)", " ".join(sentences))
    return blocks, [Span(text.strip(), tuple(MARK.findall(marks))) for _, text, marks, *_ in spans]


def find_blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page, such as docs/use.md, in these languages."""
    blocks, _ = read_page(ROOT / page)
    return [block for block in blocks if block.language in languages]


def mask(text: str) -> str:
    """The text with PLACEHOLDER for each <name>."""
    return re.sub(r"<[a-z][^<>]*>", PLACEHOLDER, text)


def split_commands(text: str) -> list[list[str]]:
    """The words of each command of a shell's lines, without comments and variables.

    A command in $(...) is a command of its own. The words of <name> are PLACEHOLDER.
    """
    text = mask(text.replace("\\\n", " "))
    inner = re.findall(r"\$\(([^()]*)\)", text)
    text = re.sub(r"\$\([^()]*\)", PLACEHOLDER, text)
    commands: list[list[str]] = [command for each in inner for command in split_commands(each)]
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|;&"):
                if words:
                    commands.append(words)
                words = []
            elif words or not re.match(r"[A-Za-z_]+=", word):
                words.append(word)
    return commands
