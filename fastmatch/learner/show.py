"Listings of a Learner's validation set, drawn in rows."
import numpy as np

from ..core import InputError
from ..data.image import image_path, read_image
from ..data.pictures import first_picture
from ..data.show import draw_listing, grid
from ..match.cells import several

RIGHT = 'tab:green'
WRONG = 'tab:red'
MISSED = 'tab:orange'


def item_image(
    dls,  # `ListingDataLoaders`
    row,  # A row of its table
):
    """The picture of a listing, the first where a cell names several, or its frames side by side, each as
    high as the first; None where `dls` has no images."""
    image_files = list(dict.fromkeys(row[column] for column in dls.image_columns if row[column] is not None))
    if not image_files: return None
    if n_more_pictures(dls, row): image_files = [first_picture(image_files[0], dls.image_folder)[0]]
    images = [read_image(image_path(dls.image_folder, image_file)) for image_file in image_files]
    height = images[0].height
    images = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    return np.concatenate([np.asarray(image) for image in images], 1)


def n_more_pictures(
    dls,  # `ListingDataLoaders`
    row,  # A row of its table
) -> int:
    "How many pictures a listing has beside the first, for loaders whose cells name several."
    if len(dls.image_columns) != 1 or not several(row[dls.image_columns[0]]): return 0
    return first_picture(row[dls.image_columns[0]], dls.image_folder)[1]


def draw_items(
    dls,  # `ListingDataLoaders`
    axes,  # matplotlib axes, at least as many as items
    cells: list,  # (row of `dls.valid_df`, note, color of note and frame) for each item
):
    "Draw validation listings, one on each axis: pictures, title, and a note below."
    title = dls.columns.title
    for ax, (position, note, color) in zip(axes, cells):
        listing = dls.valid_df.iloc[position]
        ax.axis('on')
        n_more = n_more_pictures(dls, listing)
        if n_more: note = f'{note} +{n_more}'
        draw_listing(ax, item_image(dls, listing), '' if title is None else listing[title], note, color)


def draw_rows(
    dls,  # `ListingDataLoaders`
    rows: list,  # (row of a listing in `dls.valid_df`, [(row of another, note, color), ...]) for each line
):
    "Draw validation listings with others beside them, each listing on a line of its own."
    axes = grid(len(rows), max(1 + len(others) for _, others in rows))
    for axes_row, (position, others) in zip(axes, rows):
        draw_items(dls, axes_row, [(position, 'listing', 'black'), *others])


def item_row(
    dls,  # `ListingDataLoaders` with frames
    item=None,  # Id of an item; None: the first held-out one with the most frames
):  # DataFrame of one row
    "The row of an item; raises `InputError` where there is none."
    table = dls.all_df
    if not len(table): raise InputError('these dls hold no items: those of an exported Learner have none')
    if item is None:
        held_out = dls.valid_df if len(dls.valid_df) else table
        return held_out.sort_values(dls.frame_reading.count_column, ascending=False, kind='stable').iloc[:1]
    row = table[table[dls.columns.id].astype(str) == str(item)]
    if not len(row): raise InputError(f'item={item!r}: no item of these dls')
    return row


def draw_attention(
    dls,  # `ListingDataLoaders` with frames
    row,  # A row of its table
    words: list[str],  # l tokens
    shares,  # (f,l), how much each frame looks at each of them
):
    "Draw the frames of an item in a column, and beside each how much it looks at each word."
    import matplotlib.pyplot as plt
    names = [row[column] for column in dls.image_columns[:len(shares)]]
    figure, axes = plt.subplots(len(names), 2, squeeze=False, layout='constrained',
                                figsize=(2 + .5 * len(words), 1.1 * len(names) + .8),
                                gridspec_kw={'width_ratios': [1, max(1, .5 * len(words))]})
    largest = float(shares.max())
    for place, name in enumerate(names):
        axes[place, 0].imshow(np.asarray(read_image(image_path(dls.image_folder, name))))
        axes[place, 0].axis('off')
        axes[place, 1].imshow(shares[place:place + 1], vmin=0, vmax=largest, cmap='viridis', aspect='auto')
        axes[place, 1].set_yticks([])
        axes[place, 1].set_xticks([])
    last = axes[-1, 1]
    last.set_xticks(range(len(words)), [word.replace('$', r'\$') for word in words], rotation=60, ha='right',
                    fontsize=8)
    figure.suptitle(f'{row[dls.columns.id]}: attention of frames to words, yellow is most ({largest:.2f})',
                    fontsize=9)
