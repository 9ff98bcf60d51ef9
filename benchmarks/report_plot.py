"""One picture of the results: delay against polls for every client, by distribution. Measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

STYLES: Final = {
    "veobatch": ("o", "#c2410c", 90),
    "fixed 10 s": ("s", "#334155", 45),
    "fixed 15 s": ("D", "#64748b", 40),
    "backoff 1 s x 1.5, cap 30 s": ("^", "#94a3b8", 50),
    "optimum (known distribution)": ("*", "#15803d", 110),
}


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the picture as SVG; `results` must hold what `polls` measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "veobatch", "font.size": 9})
    from matplotlib import pyplot

    found = results["polls"]["found"]
    figure, axes = pyplot.subplots(1, len(found), figsize=(9.0, 3.2), squeeze=False, layout="constrained")
    for panel, (name, one) in zip(axes[0], found.items(), strict=True):
        _panel(panel, name, one["clients"])
    axes[0][0].set_ylabel("delay from finished to noticed, s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _panel(panel: Axes, name: str, clients: Mapping[str, Mapping[str, float]]) -> None:
    """Draw one distribution; along the line, polls times delay is the fixed clock's."""
    base = clients["fixed 10 s"]
    product = base["polls"] * base["delay_s"]
    most = 1.1 * max(row["polls"] for row in clients.values())
    span = [0.3 * most + 0.7 * most * i / 60 for i in range(61)]
    panel.plot(span, [product / polls for polls in span], color="#cbd5e1", linewidth=1, zorder=0)
    for who, row in clients.items():
        marker, colour, size = STYLES[who]
        panel.scatter(row["polls"], row["delay_s"], marker=marker, color=colour, s=size, label=who, zorder=2)
    panel.set_title(name)
    panel.set_xlabel("polls a job")
    panel.set_ylim(bottom=0)
    panel.set_xlim(0, most)
    panel.spines[["top", "right"]].set_visible(False)
