"""What figures share: colours and atomic writes. matplotlib is imported when a figure is drawn."""

import pathlib

from lidit_jax import files
from lidit_jax.errors import check_installed

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def check():
    """Raises InputError if matplotlib is missing, before hours of work end in a figure."""
    check_installed("a figure", "evaluation", "matplotlib")


def pyplot():
    """Returns matplotlib's pyplot with a backend that draws to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save(figure, path: pathlib.Path):
    """Writes a figure as PNG, atomically, and closes it."""
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    pyplot().close(figure)
