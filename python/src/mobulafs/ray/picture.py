"""A picture of which space holds which chunk, for instance before and after healing. Needs matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .artifacts import ArtifactStatus

__all__ = ["draw"]

_COLOURS = {"healthy": "#2a9d8f", "too few copies": "#e9c46a", "lost": "#c1121f"}
_CHUNKS_SHOWN = 200


def draw(
    states: Sequence[tuple[str, Sequence[ArtifactStatus], dict[str, int]]],
    file: str | os.PathLike[str] | None = None,
) -> Any:
    """One panel a state: (title, what check_status said, the number of the space behind each address)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(states), 4), layout="constrained")
    axes = figure.subplots(1, len(states), squeeze=False)[0]
    numbers = sorted({number for _, _, places in states for number in places.values()})
    for axis, (title, artifacts, places) in zip(axes, states, strict=True):
        column = 0
        for artifact in artifacts:
            for chunk in artifact.chunks[: _CHUNKS_SHOWN - column]:
                state = "lost" if not chunk.copies else "healthy" if chunk.copies >= chunk.wanted else "too few copies"
                rows = [numbers.index(places[address]) for address in chunk.spaces if address in places]
                axis.scatter([column] * len(rows), rows, marker="s", s=40, color=_COLOURS[state])
                if state == "lost":
                    axis.axvline(column, color=_COLOURS["lost"], linestyle=":")
                column += 1
        axis.set_title(title)
        axis.set_xlabel("chunk")
        axis.set_yticks(range(len(numbers)), [f"space {number}" for number in numbers])
        axis.set_ylim(-0.5, len(numbers) - 0.5)
    if file is not None:
        figure.savefig(os.fspath(file))
    return figure
