"Pictures of listings: a picture, its title, and a word about it."
import textwrap

import matplotlib.pyplot as plt
import numpy as np

WIDTH = 24  # characters of a title on a line: what a cell two inches wide holds at 8 points


def wrap(title: str, lines: int = 3) -> str:
    "`title` in at most `lines` lines, the rest cut with an ellipsis."
    # matplotlib reads $ as the start of a formula, and prices hold it
    return '\n'.join(textwrap.wrap(title, WIDTH, max_lines=lines, placeholder=' …')).replace('$', r'\$')


def draw_listing(
    ax,  # matplotlib axis
    image=None,  # (h,w,3) uint8 array or PIL image, or None
    title: str = '',  # Title, or ''
    note: str = '',  # A word below: the group, a score
    color: str = 'black',  # Of the note and the frame: says right or wrong
):
    "Draw one listing on `ax`: the picture with its title and note, or the title alone."
    ax.set_xticks([]); ax.set_yticks([])
    frame = color != 'black'
    for side in ax.spines.values(): side.set(visible=frame or image is None, color=color if frame else '0.8', linewidth=2.5 if frame else 1)
    if image is None: ax.text(.5, .5, wrap(title, 6), ha='center', va='center', fontsize=8, transform=ax.transAxes)
    else:
        ax.imshow(np.asarray(image))
        ax.set_title(wrap(title), fontsize=8, pad=3)
    if note: ax.set_xlabel(note.replace('$', r'\$'), fontsize=8, color=color, labelpad=2)


def grid(
    rows: int,  # Rows of cells
    cols: int,  # Columns of cells
    size: float = 1.6,  # Width of a cell in inches
):
    "A figure of `rows` x `cols` blank axes, with room for titles; returns the axes (rows,cols)."
    fig, axes = plt.subplots(rows, cols, figsize=(cols * size, rows * size * 1.45), squeeze=False, layout='constrained')
    for ax in axes.flat: ax.axis('off')
    return axes
