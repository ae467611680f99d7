"""What a notebook shows of a node and of names: small tables in HTML.

Texts in them may come from anybody, so all are escaped; and a table has few rows, however many there are.
"""

import heapq
from collections.abc import Iterable, Mapping
from html import escape

from kinfolk.wire.handshake import printable

ROWS = 20
"""Rows that a table shows at most."""


def facts(caption: str, values: Mapping[str, object]) -> str:
    """A table of what there is to say of one thing."""
    rows = [f'<tr><th style="text-align:left">{_text(key)}</th>{_cell(value)}</tr>' for key, value in values.items()]
    return _table(caption, rows)


def listing(caption: str, head: Iterable[str], values: Mapping[str, object]) -> str:
    """A table of the first of many things, in the order of their names; it says how many more there are."""
    first = heapq.nsmallest(ROWS, values)
    rows = ["<tr>" + "".join(f'<th style="text-align:left">{_text(title)}</th>' for title in head) + "</tr>"]
    rows += [f"<tr>{_cell(key)}{_cell(values[key])}</tr>" for key in first]
    more = len(values) - len(first)
    if more:
        rows.append(f'<tr><td colspan="2" style="text-align:left">and {more:,} more</td></tr>')
    return _table(caption, rows)


def _table(caption: str, rows: Iterable[str]) -> str:
    head = f'<caption style="text-align:left;font-weight:bold">{_text(caption)}</caption>'
    return f"<table>{head}{''.join(rows)}</table>"


def _cell(value: object) -> str:
    return f'<td style="text-align:left">{_text(value)}</td>'


def _text(value: object) -> str:
    return escape(printable(str(value)))
