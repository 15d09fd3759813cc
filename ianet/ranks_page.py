"""Ranked lists as pictures: one page of HTML that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from html import escape
from typing import Literal, get_args

import pandas as pd
from PIL import Image

from ianet.datasets.source import Opener
from ianet.options import refuse_unknown

Sort = Literal["worst", "best", "given"]
SIZE = (96, 160)  # of a thumbnail in pixels, at most: width and height
SIGNS = {True: ("right", "✓"), False: ("wrong", "✗")}
UNKNOWN = ("unknown", "")
ACCEPTED = {True: ("accepted", "●"), False: ("rejected", "○")}

STYLE = """
:root { color-scheme: light dark; }
body { background: Canvas; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 1rem auto; max-width: 80rem; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1rem; overflow-wrap: anywhere; }
"""
"""Of a page, beside that of its lists."""
LIST_STYLE = """
.ranks { --right: #14602f; --wrong: #991b1b; --accepted: #1e40af; --frame: #8886; }
@media (prefers-color-scheme: dark) {
  .ranks { --right: #4ade80; --wrong: #fca5a5; --accepted: #93c5fd; }
}
.ranks { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; margin: 0; padding: 0; }
.ranks li { width: 96px; }
.ranks img, .ranks .none { border: 3px solid var(--frame); box-sizing: border-box; display: block; }
.ranks img { height: auto; max-width: 100%; }
.ranks .none { align-items: center; display: flex; height: 8rem; padding: .3rem; }
.ranks .right img, .ranks .right .none { border-color: var(--right); }
.ranks .wrong img, .ranks .wrong .none { border-color: var(--wrong); border-style: dashed; }
.ranks .right b { color: var(--right); }
.ranks .wrong b { color: var(--wrong); }
.ranks .accepted { color: var(--accepted); }
.ranks small { display: block; font-size: .75rem; overflow-wrap: anywhere; }
"""
"""Of the lists that `write_list` writes."""
LEGEND = "A solid green frame with ✓ is the same person, a dashed red frame with ✗ another."
ACCEPTED_LEGEND = "A blue ● is nearer than the threshold of the model for searches, and ○ is not."

Thumbnail = Callable[[str], tuple[str, str]]
"""The path of a picture to its data URL, or to "" and why there is none; see `draw_thumbnail`."""


def sort_queries(ranks: pd.DataFrame, sort: Sort) -> list[str]:
    """Return the paths of the queries in an order.

    A query is as good as its average precision among its shown neighbours: the mean, over the right
    ones, of the share of right ones up to there, or 0 without a right one. Queries whose neighbours
    are all unknown come last, as given.

    Args:
        ranks: see `ianet.searching.search`.
        sort: "worst" or "best" first, or as "given".

    Raises:
        ValueError: an unknown `sort`.
    """
    refuse_unknown("sort", sort, get_args(Sort))
    rows = ranks[ranks.right.notna()].drop_duplicates(["query", "rank"])
    right = rows.right.astype(int)
    query = rows["query"]
    precision = right.groupby(query).cumsum() / rows["rank"] * right
    scores = precision.groupby(query).sum() / right.groupby(query).sum().clip(lower=1)
    queries = list(dict.fromkeys(ranks["query"]))
    if sort == "given":
        return queries
    sign = 1 if sort == "worst" else -1
    return sorted(queries, key=lambda path: sign * scores[path] if path in scores else 2)


def write_page(
    ranks: pd.DataFrame, queries: list[str], open_picture: Opener, title: str
) -> Iterator[str]:
    """Yield the parts of a page: its head, one for each query, and its end.

    Args:
        ranks: see `ianet.searching.search`. A column `accepted`, if there is one, says which
            pictures are nearer than a threshold.
        queries: their paths, in the order of the page.
        open_picture: decodes the picture of a path. ValueError leaves a gap with the reason.
        title: of the page.
    """
    ranks = ranks.drop_duplicates(["query", "rank"])  # of a query that was given several times
    total = ranks["query"].nunique()
    extent = f"{total:,} {'query' if total == 1 else 'queries'}"
    if len(queries) < total:
        extent = f"{len(queries):,} of {extent}"
    legend = f"{LEGEND} " if ranks.right.notna().any() else ""
    legend += f"{ACCEPTED_LEGEND} " if "accepted" in ranks else ""
    yield (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{LIST_STYLE}</style>\n"
        f"<main>\n<h1>{escape(title)}</h1>\n"
        f"<p>{extent}. {legend}The number is the distance, from 0 to 2.</p>\n"
    )
    thumbnail = lru_cache(maxsize=1000)(lambda path: draw_thumbnail(path, open_picture))
    groups = dict(iter(ranks.groupby("query", sort=False)))
    for query in queries:
        rows = groups[query]
        person = rows.query_person.iloc[0]
        name = f"{query}, person {person}" if person else query
        list_of_ranks = write_list(query, name, rows, thumbnail)
        yield f"<section>\n<h2>{escape(name)}</h2>\n{list_of_ranks}</section>\n"
    yield "</main>\n"


def write_list(query: str, name: str, rows: pd.DataFrame, thumbnail: Thumbnail) -> str:
    """Return a query and its ranked neighbours as a list of HTML, to be shown by `LIST_STYLE`.

    Args:
        query: path of its picture.
        name: of the query, for who does not see the picture.
        rows: of the query, see `write_page`.
        thumbnail: draws a picture.
    """
    items = [_write_item("", thumbnail(query), f"query {name}", "<b>query</b>")]
    for row in rows.to_dict("records"):
        kind, sign = UNKNOWN if pd.isna(row["right"]) else SIGNS[bool(row["right"])]
        person = f", person {row['person']}" if row["person"] else ""
        words = f", {kind}" if sign else ""
        distance = number = f"{row['distance']:.3f}"
        if "accepted" in row:
            word, mark = ACCEPTED[bool(row["accepted"])]
            words += f", {word}"
            number = f'<span class="{word}">{mark} {distance}</span>'
        text = f"rank {row['rank']}: {row['path']}{person}, distance {distance}{words}"
        caption = f"<b>{sign} {row['rank']}</b> {number}<small>{escape(row['person'])}</small>"
        items.append(_write_item(kind, thumbnail(row["path"]), text, caption))
    return f'<ol class="ranks">\n{"".join(items)}</ol>\n'


def _write_item(kind: str, picture: tuple[str, str], text: str, caption: str) -> str:
    source, reason = picture
    image = (
        f'<img src="{source}" alt="{escape(text)}" title="{escape(text)}">'
        if source
        else f'<span class="none" title="{escape(text)}">{escape(reason)}</span>'
    )
    return f'<li class="{kind}">{image}{caption}</li>\n'


def draw_thumbnail(path: str, open_picture: Opener) -> tuple[str, str]:
    """Return a picture as a data URL, or "" and why there is none."""
    try:
        image = open_picture(path)
    except ValueError as error:
        return "", str(error)
    image.thumbnail(SIZE, Image.Resampling.BILINEAR)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}", ""
