"""Tables as people read them: Markdown, LaTeX and HTML of the same cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from ianet.escapes import escape_markdown, to_csv
from ianet.files import write_whole

DASH = "–"
TEMPLATE = Path(__file__).with_name("page.html.jinja")
MINUS = re.compile(r"(?<![\w.)])-(?=\d)")  # a hyphen before a number, not within a name
LATEX_SIGNS = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$",
        "{": r"\{", "}": r"\}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
        "\n": " ", "–": "--", "±": r"$\pm$", "→": r"$\to$", "√": r"$\surd$",
    }
)  # fmt: skip
"""Signs with a meaning in LaTeX and signs that LaTeX lacks, and what stands for them."""


class Cell(NamedTuple):
    """A text, and what a page may do with the text.

    Attributes:
        kind: "ours", or "best" of its column; "gain", "loss" or "unsure", by whether a gain is a
            finding; or nothing.
        runs: keys of the runs behind the cell.
    """

    text: str
    kind: str = ""
    runs: tuple[str, ...] = ()


class TableRow(NamedTuple):
    """The cells of a label. Neighbouring rows of one group stand under a heading.

    Attributes:
        is_run: whether a number of ours is among the cells.
    """

    group: str
    label: str
    cells: list[Cell]
    is_run: bool = True


class Panel(NamedTuple):
    """The rows of one data set, or, without a data set's name, all rows."""

    dataset: str
    columns: list[str]
    rows: list[TableRow]

    @property
    def has_groups(self) -> bool:
        """Whether a row belongs to a group."""
        return any(row.group for row in self.rows)

    @property
    def parts(self) -> list[tuple[bool, list[TableRow]]]:
        """The rows with a number of ours, then the others, each part if there is one."""
        parts = [(is_run, [row for row in self.rows if row.is_run == is_run]) for is_run in (1, 0)]
        return [(bool(is_run), rows) for is_run, rows in parts if rows]


class Section(NamedTuple):
    """A table of experiments/, a panel for each data set.

    Attributes:
        picture: what is drawn of the table as SVG, or nothing.
        picture_name, picture_caption: what the picture shows, and how the picture is read.
    """

    name: str
    title: str
    caption: str
    panels: list[Panel]
    note: str
    picture: str = ""
    picture_name: str = ""
    picture_caption: str = ""


def to_frame(panel: Panel) -> pd.DataFrame:
    """The texts of a panel; a group is named in its first row only."""
    rows, before = [], ""
    for row in panel.rows:
        group = [row.group if row.group != before else ""] if panel.has_groups else []
        rows.append([*group, row.label, *(cell.text for cell in row.cells)])
        before = row.group
    return pd.DataFrame(rows, columns=[*([""] if panel.has_groups else []), "", *panel.columns])


def write(section: Section, folder: Path, frame: pd.DataFrame) -> None:
    """Write <name>.csv of the frame; .md, .tex and .html of the section; .svg of its picture."""
    write_whole(folder / f"{section.name}.csv", to_csv(frame, "%.4g"))
    write_whole(folder / f"{section.name}.md", to_markdown(section))
    write_whole(folder / f"{section.name}.tex", to_latex(section))
    write_whole(folder / f"{section.name}.html", to_html(section.title, [section]))
    if section.picture:
        write_whole(folder / f"{section.name}.svg", section.picture)


def to_markdown(section: Section) -> str:
    """A section with its title, caption and note; a table for each panel."""
    title, caption, note = (
        escape_markdown(text) for text in (section.title, section.caption, section.note)
    )
    texts = [f"# {title}", caption]
    for panel in section.panels:
        table = to_markdown_table(panel)
        texts += [f"## {panel.dataset}", table] if panel.dataset else [table]
    return "\n\n".join([*texts, note]) + "\n"


def to_markdown_table(panel: Panel) -> str:
    """The table alone. Numbers keep their digits: 45.0 does not become 45."""
    frame = _escape(to_frame(panel), escape_markdown)
    return frame.to_markdown(index=False, disable_numparse=True)


def to_latex(section: Section) -> str:
    """A `table` for each panel, which needs the package booktabs."""
    texts = []
    for panel in section.panels:
        frame = to_frame(panel)
        title = f"{section.title}, {panel.dataset}" if panel.dataset else section.title
        names = len(frame.columns) - len(panel.columns)
        texts.append(
            _escape(frame, escape_latex).to_latex(
                index=False,
                column_format="l" * names + "r" * len(panel.columns),
                caption=escape_latex(f"{title}. {section.caption}"),
                label=f"tab:{section.name}" + (f"-{panel.dataset}" if panel.dataset else ""),
            )
        )
    return "\n".join([*texts, f"% {' '.join(section.note.split())}\n"])


def escape_latex(text: str) -> str:
    """A text that LaTeX shows as it is."""
    return text.translate(LATEX_SIGNS)


def _escape(frame: pd.DataFrame, escape: Callable[[str], str]) -> pd.DataFrame:
    """A frame of texts with its texts escaped, in its column names too."""
    return frame.map(escape).set_axis([escape(str(column)) for column in frame.columns], axis=1)


def svg_element(svg: str) -> str:
    """The element of an SVG file, without the lines that only a file may begin with."""
    return svg[svg.index("<svg") :]


def use_minus(text: str) -> str:
    """A text with minus signs before its negative numbers."""
    return MINUS.sub("−", text)


def to_html(title: str, sections: Sequence[Section], **report: Any) -> str:
    """A page that fetches nothing; `report` holds what only results/report.html has."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"element": svg_element, "minus": use_minus}
    template = environment.from_string(TEMPLATE.read_text())
    values: Mapping[str, Any] = {"title": title, "sections": sections, **report}
    return template.render(values)
