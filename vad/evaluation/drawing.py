"""How the pictures of a report are drawn: one style, one width, SVG that stands alone.

SVG with text left as text, so that the page's own font is used; measured with DejaVu Sans, which is wider than the
fonts that browsers bring, so that nothing is clipped. No meaning is carried by colour alone.
"""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 4.2  # inches; a phone's column shows it at nine tenths
INK, TRUTH, ALARM, QUIET = "#1f4e79", "#c98200", "#c0392b", "#6b6b6b"
CONTROLS = (("#2f7d6b", "--", "s"), ("#7a4fa3", ":", "D"), ("#8a5a13", "-.", "^"), ("#7d7d7d", (0, (1, 3)), "x"))
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vadwatch",  # the same picture has the same bytes
    "text.parse_math": False,  # a name with $ in it is a name
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": "#333333",
    "ytick.labelcolor": "#333333",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "hatch.linewidth": 0.8,
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing for an ``img`` element; in one, its ids cannot collide with another's, and it can load nothing."""

    svg: str
    alt: str

    @property
    def uri(self) -> str:
        """The whole drawing as an address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode("utf-8", "replace")).decode()


def kind(names: Sequence[str]) -> str:
    """A video's categories as one word."""
    return " + ".join(names) or "abnormal"


def short(text: str, most: int = 22) -> str:
    """A label that fits beside a picture, without what no font can show.

    >>> short("a" * 30, 5)
    'aaaa…'
    """
    clean = "".join(each if each.isprintable() else "�" for each in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def styled(named: Mapping[str, Any]) -> Iterator[tuple[tuple[str, Any, str], tuple[str, Any]]]:
    """Each of the controls with its colour, line and mark."""
    for place, item in enumerate(named.items()):
        yield CONTROLS[place % len(CONTROLS)], item


@contextlib.contextmanager
def figure_of(height: float) -> Iterator[Figure]:
    """An empty figure as wide as a phone's column, ``height`` inches high."""
    from matplotlib import style
    from matplotlib.figure import Figure

    # default: whatever a user's own matplotlibrc says, a report looks the same
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # text stays text: the browser has the glyph
        yield Figure(figsize=(_WIDTH, height), layout="constrained")


def picture(figure: Figure, alt: str) -> Picture:
    """What was drawn, with the words that say the same."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue().replace("'DejaVu Sans', sans-serif", _FONTS).replace("'DejaVu Sans'", _FONTS)
    return Picture(svg[svg.index("<svg") :], alt)
