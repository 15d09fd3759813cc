"""Tables as people read them: Markdown, LaTeX and HTML of the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from pipeline.shell import write_whole

DASH = "–"
TEMPLATE = Path(__file__).with_name("page.html.jinja")


class Cell(NamedTuple):
    """A text, and what a page may do with it.

    Attributes:
        kind: "ours"; "gain", "loss" or "unsure", by the interval of a gain; "within" or
            "outside" the spread, of a difference from the paper; or nothing.
        runs: names of the runs behind it.
    """

    text: str
    kind: str = ""
    runs: tuple[str, ...] = ()


class Line(NamedTuple):
    group: str
    label: str
    cells: list[Cell]


class Part(NamedTuple):
    """The lines of one data set, or, without a name, all there are."""

    dataset: str
    columns: list[str]
    lines: list[Line]

    @property
    def grouped(self) -> bool:
        return any(line.group for line in self.lines)


class Section(NamedTuple):
    name: str
    title: str
    caption: str
    parts: list[Part]
    note: str


def as_frame(part: Part) -> pd.DataFrame:
    """Everything as text; a group is named in its first line only."""
    rows, before = [], ""
    for line in part.lines:
        group = [line.group if line.group != before else ""] if part.grouped else []
        rows.append([*group, line.label, *(cell.text for cell in line.cells)])
        before = line.group
    return pd.DataFrame(rows, columns=[*([""] if part.grouped else []), "", *part.columns])


def write(section: Section, folder: Path, frame: pd.DataFrame) -> None:
    """<name>.csv of the frame, and .md, .tex and .html of the section."""
    write_whole(folder / f"{section.name}.csv", frame.to_csv(index=False, float_format="%.4g"))
    write_whole(folder / f"{section.name}.md", markdown(section))
    write_whole(folder / f"{section.name}.tex", latex(section))
    write_whole(folder / f"{section.name}.html", html(section.title, [section]))


def markdown(section: Section) -> str:
    texts = [f"# {section.title}", section.caption]
    for part in section.parts:
        table = as_frame(part).to_markdown(index=False, disable_numparse=True)
        texts += [f"## {part.dataset}", table] if part.dataset else [table]
    return "\n\n".join([*texts, section.note]) + "\n"


def latex(section: Section) -> str:
    """A `table` for each data set; it needs the package booktabs."""
    texts = []
    for part in section.parts:
        frame = as_frame(part)
        title = f"{section.title}, {part.dataset}" if part.dataset else section.title
        names = len(frame.columns) - len(part.columns)
        plain = frame.map(_escaped)
        plain.columns = pd.Index([_escaped(column) for column in frame.columns])
        texts.append(
            plain.to_latex(
                index=False,
                column_format="l" * names + "r" * len(part.columns),
                caption=_escaped(f"{title}. {section.caption}"),
                label=f"tab:{section.name}" + (f"-{part.dataset}" if part.dataset else ""),
            )
        )
    return "\n".join([*texts, f"% {section.note}\n"])


def _escaped(text: str) -> str:
    """For LaTeX; its own signs, and those of ours that it lacks."""
    signs = {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$",
        "–": "--", "±": r"$\pm$", "→": r"$\to$", "√": r"$\surd$",
    }  # fmt: skip
    return "".join(signs.get(sign, sign) for sign in text)


def html(title: str, sections: Sequence[Section], **report: Any) -> str:
    """A page that needs nothing but itself; `report` is what only results/report.html has."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text())
    values: Mapping[str, Any] = {"title": title, "sections": sections, **report}
    return template.render(values)
