"""What goes to a page, a table or a note is escaped for its kind."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest

from ianet import escapes
from pipeline.report import page
from pipeline.report.page import Cell, Panel, Section, TableRow

EVIL = '<script>alert("a")</script> [b](http://c) *d* _e_ `f` | $g$ \\h &lt; #i ~~j~~'
SECTION = Section(
    "t", EVIL, EVIL, [Panel("", ["top-1"], [TableRow("", EVIL, [Cell("45.0")])])], f"{EVIL}\nend"
)


def test_markdown_shows_signs_as_they_are() -> None:
    text = page.to_markdown(SECTION)
    escaped = escapes.escape_markdown(EVIL)
    assert escaped.startswith(r"\<script\>alert")
    assert r"[b]\(http://c) \*d\* \_e\_ \`f\` \| \$g\$ \\h \&lt; \#i \~\~j\~\~" in escaped
    assert text.count(escaped) == 4  # title, caption, label, note
    title, caption, table, note = text.rstrip("\n").split("\n\n")
    assert (title, caption, note) == (f"# {escaped}", escaped, f"{escaped} end")
    assert len(table.splitlines()) == 3
    assert "45.0" in table


def test_a_note_stays_a_comment_in_latex() -> None:
    lines = page.to_latex(SECTION).splitlines()
    [note] = [line for line in lines if line.startswith("% ")]
    assert note.endswith(" end")
    assert lines[-1] == note
    cell = r"\$g\$ \textbackslash{}h \&lt; \#i \textasciitilde{}"
    assert any(cell in line for line in lines)


def test_html_holds_no_element_of_a_text() -> None:
    text = page.to_html(EVIL, [SECTION])
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#34;a&#34;)&lt;/script&gt;" in text


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://a")', '\'=HYPERLINK("http://a")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-1+1", "'-1+1"),
        ("\t=1", "'\t=1"),
        ("-1.5", "-1.5"),
        ("+0.3", "+0.3"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_cell_of_a_csv_is_a_formula(text: str, cell: str) -> None:
    written = escapes.to_csv(pd.DataFrame({"label": [text], text: [-2.25]}), "%.4g")
    assert list(csv.reader(io.StringIO(written))) == [["label", cell], [cell, "-2.25"]]


@pytest.mark.parametrize("text", ["=1", "'=1", "''@a", "-1", "-1a", "'a", "'", "", "a"])
def test_a_text_of_a_cell_comes_back(text: str) -> None:
    cell = escapes.defuse(text)
    assert escapes.restore(cell) == text
    assert cell[:1] not in "=@" or not cell


def test_columns_of_one_name_stay_apart() -> None:
    frame = pd.DataFrame([["=a", "b", None, True]], columns=["", "", "x", "x"])
    assert escapes.to_csv(frame) == ",,x,x\n'=a,b,,True\n"
    assert frame.iloc[0, 0] == "=a"
