"""Figures, as PNG for documents and SVG for print, by matplotlib, which is imported only here and only when one is drawn.

Invariant: the same figures give the same bytes: no dates, no random names, no fonts but matplotlib's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colla.model.errors import CollaError

DOTS_PER_INCH = 150
STYLE: Any = {
    "svg.hashsalt": "colla",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which people tell apart however they see colours."""


def need_matplotlib() -> None:
    """Raises `CollaError` at once when no figure could be drawn in the end."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CollaError(
            "lab_missing", "Figures need matplotlib, which is not installed.", "pip install 'colla[lab]'"
        ) from error


@contextmanager
def figure(
    path: Path, rows: int = 1, columns: int = 1, width_in: float = 7.0, height_in: float = 4.0
) -> Iterator[tuple[Any, Any]]:
    """Draw on (figure, axes) as `matplotlib.pyplot.subplots` gives them; written as `path` with .png and .svg.

    `axes` is one, or an array of them where there are several rows or columns. Raises `CollaError` (`lab_missing`).
    """
    need_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(width_in, height_in))
        FigureCanvasAgg(drawn)
        yield drawn, drawn.subplots(rows, columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(path.with_suffix(".png"), dpi=DOTS_PER_INCH, metadata={"Software": None})
        drawn.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
