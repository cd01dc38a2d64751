"Titles and notes are drawn as text, whatever is in them."
import matplotlib.pyplot as plt

from fastmatch.data.show import draw_listing, grid, wrap


def test_dollars_and_long_titles_are_drawn_as_text():
    ax = grid(1, 1)[0, 0]
    ax.axis('on')
    draw_listing(ax, None, 'from $3 to $_{9', 'a$x_{b$', 'red')
    ax.figure.canvas.draw()  # a broken formula would raise here
    assert ax.texts[0].get_text() == r'from \$3 to \$_{9'
    assert ax.spines['left'].get_edgecolor() == (1, 0, 0, 1)
    lines = wrap('word ' * 60).split('\n')
    assert len(lines) == 3 and all(len(line) <= 24 for line in lines) and lines[-1].endswith('…')
    plt.close('all')
