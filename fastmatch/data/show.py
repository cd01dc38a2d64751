"Draw listings with matplotlib: a picture, its title, and a note about it."
import textwrap

import matplotlib.pyplot as plt
import numpy as np

WIDTH = 24  # characters of a title on a line: what a cell two inches wide holds at 8 points


def wrap(
    title: str,  # Any text
    lines: int = 3,  # Most lines; what doesn't fit is left out, with an ellipsis
) -> str:
    "Break a title into lines for a small picture, in a form that matplotlib takes literally."
    # matplotlib reads $ as the start of a formula, and prices hold it
    return '\n'.join(textwrap.wrap(title, WIDTH, max_lines=lines, placeholder=' …')).replace('$', r'\$')


def draw_listing(
    ax,  # matplotlib axis
    image=None,  # (h,w,3) uint8 array or PIL image; None: the title alone
    title: str = '',  # Title, or ''
    note: str = '',  # Written below: the group, a score
    color: str = 'black',  # Of the note; any but black also frames the picture, to show right or wrong
):
    "Draw one listing on `ax`: the picture with its title and note, or the title alone."
    ax.set_xticks([])
    ax.set_yticks([])
    is_framed = color != 'black'
    line_style = dict(color=color, linewidth=2.5) if is_framed else dict(color='0.8', linewidth=1)
    for side in ax.spines.values(): side.set(visible=is_framed or image is None, **line_style)
    if image is None:
        ax.text(.5, .5, wrap(title, 6), ha='center', va='center', fontsize=8, transform=ax.transAxes)
    else:
        ax.imshow(np.asarray(image))
        ax.set_title(wrap(title), fontsize=8, pad=3)
    if note: ax.set_xlabel(note.replace('$', r'\$'), fontsize=8, color=color, labelpad=2)


def grid(
    rows: int,  # Rows of cells
    cols: int,  # Columns of cells
    size: float = 1.6,  # Width of a cell in inches
):  # (rows, cols) of matplotlib axes
    "Make a figure of blank cells for `draw_listing`, with room for titles."
    figsize = (cols * size, rows * size * 1.45)
    _, axes = plt.subplots(rows, cols, figsize=figsize, squeeze=False, layout='constrained')
    for ax in axes.flat: ax.axis('off')
    return axes
