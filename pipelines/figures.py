"""How figures and verdicts of the reports look, and how they become part of a page: inline SVG.

Text stays text, so that it takes the page's font and can be searched. The palette is Okabe and
Ito's ("Color Universal Design", 2008), readable without colour vision and told apart in print.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any, Final

from matplotlib.figure import Figure

COLOURS: Final = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
VERMILLION: Final = COLOURS[2]
SKY_BLUE: Final = COLOURS[6]
INK: Final = "#1c1f24"
QUIET: Final = "#565c66"
FRAME: Final = "#8a8f98"
# Signs beside the words of verdicts: colour alone would not reach everyone.
MARKS: Final = {"pass": "✓", "fail": "✕", "inconclusive": "?", "error": "!"}
STYLE: Final[dict[Any, object]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rankstream",
    "text.parse_math": False,  # a model's name may hold a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.edgecolor": FRAME,
    "axes.labelcolor": "#30343b",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": "#30343b",
    "grid.color": "#e3e6ea",
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def svg(figure: Figure, label: str) -> str:
    """The figure as an element to stand in a page.

    Args:
        label: what it shows, for those who cannot see it; no two figures of a page have the same,
            so that neither have their ids.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    body = buffer.getvalue()
    body = re.sub(r"<metadata>.*?</metadata>", "", body[body.index("<svg") :], flags=re.DOTALL)
    # Names of groups, which nothing refers to; what is referred to carries the label.
    body = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", body)
    prefix = re.sub(r"\W", "-", label)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
