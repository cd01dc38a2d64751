"Listings as a page shows them: title, id, group, and a small picture that is part of the page itself."
import base64
import io
from dataclasses import dataclass
from dataclasses import field as dict_field
from pathlib import Path

from PIL import Image

from ..core import InputError
from ..data.image import read_image
from ..match.cells import as_text, several

SIDE = 160  # pixels of a picture's longer side: sharp on a phone's screen, about 4 KB each


@dataclass
class Card:
    "What `cards.html` shows of a listing."
    id: str
    group: str
    title: str | None = None  # None: the listings have no titles
    picture: str | None = None  # A data address; None: no pictures
    more_pictures: int = 0  # That the listing has beside the one shown
    cells: dict = dict_field(default_factory=dict)  # Name of a column that is compared -> its cell as text


class Cards:
    "Makes the card of a listing from its row number. A picture that is shown again isn't read again."
    def __init__(
        self,
        embeddings,  # `Embeddings`: ids, titles, groups
        # (n,) files or PIL images, or a function from a row number to one; a list of them where a listing has
        # several, the first of which is shown; None: no pictures
        images=None,
    ):
        if images is not None and not callable(images) and len(images) != len(embeddings):
            raise InputError(f'images: {len(images)} for {len(embeddings)} listings')
        self.embeddings = embeddings
        self.images = images
        self._pictures = {}

    def card(
        self,
        row: int,  # Row of the listing
    ) -> Card:
        "One listing."
        row = int(row)
        listings = self.embeddings
        return Card(
            id=listings.ids[row],
            group='' if listings.groups[row] is None else listings.groups[row],
            title=None if listings.titles is None else listings.titles[row],
            picture=None if self.images is None else self.picture(row),
            more_pictures=0 if self.images is None else len(self._images_of(row)) - 1,
            cells={name: as_text(column.cells[row]) for name, column in listings.fields.items()
                   if as_text(column.cells[row])})

    def picture(
        self,
        row: int,  # Row of the listing
    ) -> str:
        "The listing's first picture as a data address."
        if row not in self._pictures:
            first, *_ = self._images_of(row)
            self._pictures[row] = data_uri(first, f'row {row} ({self.embeddings.ids[row]})')
        return self._pictures[row]

    def _images_of(self, row):
        "All pictures of a listing, as they were given."
        images = self.images(row) if callable(self.images) else self.images[row]
        if not several(images): return [images]
        if not len(images): raise InputError(f'images: row {row} ({self.embeddings.ids[row]}) has none')
        return list(images)


def data_uri(
    image,  # File or PIL image
    where: str,  # Whose picture it is, for the message
) -> str:
    "A picture as a small WebP in a data address; one that can't be read raises `InputError`."
    try:
        picture = read_image(image, (SIDE, SIDE)) if isinstance(image, (str, Path)) else image.convert('RGB')
    except OSError as error: raise InputError(f'{where}: {image} can not be read: {error}') from error
    if max(picture.size) > SIDE: picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, 'WEBP', quality=75)
    return f'data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}'
