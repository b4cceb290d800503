"""A small table for terminals and notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Table", "size"]

_ROWS_SHOWN = 50


class Table:
    """A title, columns and rows; columns named in `sizes` hold bytes."""

    def __init__(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], sizes: set[str] | None = None
    ) -> None:
        """Keeps the values; they become text when they are shown."""
        self.title = title
        self.columns = tuple(columns)
        self.rows = [tuple(row) for row in rows]
        self._sizes = sizes or set()

    def __len__(self) -> int:
        """How many rows."""
        return len(self.rows)

    def __repr__(self) -> str:
        """For a terminal."""
        shown = [self.columns, *self._texts()]
        widths = [max(len(row[at]) for row in shown) for at in range(len(self.columns))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in shown
        ]
        return "\n".join([self.title, *lines, *self._rest()])

    def _repr_html_(self) -> str:
        def cells(row: Sequence[str], kind: str) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in row) + "</tr>"

        rows = "".join(cells(row, "td") for row in self._texts())
        more = "".join(f"<p>{html.escape(line)}</p>" for line in self._rest())
        return f"<b>{html.escape(self.title)}</b><table>{cells(self.columns, 'th')}{rows}</table>{more}"

    def _texts(self) -> list[tuple[str, ...]]:
        return [
            tuple(self._text(*cell) for cell in zip(self.columns, row, strict=True)) for row in self.rows[:_ROWS_SHOWN]
        ]

    def _rest(self) -> list[str]:
        more = len(self.rows) - _ROWS_SHOWN
        return [f"... and {more} more"] if more > 0 else []

    def _text(self, column: str, value: Any) -> str:
        if value is None:
            return "-"
        if column in self._sizes:
            return size(value)
        if isinstance(value, (list, tuple)):
            return " ".join(map(str, value))
        return str(value)


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("the loop ends with the largest unit")
