"""One look for all figures: what colour tells apart, line styles tell apart too."""

from matplotlib.artist import setp
from matplotlib.axes import Axes


def tell_apart(axes: Axes) -> None:
    """Give the lines of a seaborn plot different styles, in the plot and in its legend.

    Args:
        axes: a plot with one line per hue, drawn in the reverse order of the legend, as seaborn does.
    """
    legend = axes.get_legend()
    handles = reversed(legend.legend_handles) if legend is not None else [None] * len(axes.lines)
    for line, handle, style in zip(axes.lines, handles, ("-", "--", ":", "-."), strict=False):
        setp(line, linestyle=style)
        if handle is not None:
            setp(handle, linestyle=style)
