"The pictures of listings one after the other, as an encoder reads them, and what can't be read of them."
import numpy as np


def hashes_by_listing(
    hashes: np.ndarray,  # object (m,), one a picture
    listings: np.ndarray,  # int (m,), rising from 0
) -> np.ndarray:  # object (n,), a list where a listing has several
    "The perceptual hashes of the pictures of each listing."
    of_listings = np.full(listings.max(initial=-1) + 1, None, object)
    for listing, of_listing in enumerate(np.split(hashes, np.flatnonzero(np.diff(listings)) + 1)):
        of_listings[listing] = of_listing[0] if len(of_listing) == 1 else list(of_listing)
    return of_listings


class PictureTable:
    "The pictures of n listings, one after the other: what is read of them, and what can't be."
    def __init__(
        self,
        files_by_listing: list,  # n lists of files, empty where a listing names none
    ):
        filled = [files or [None] for files in files_by_listing]
        self.files = [file for files in filled for file in files]  # m files or Nones
        self.listings = np.repeat(np.arange(len(filled)), [len(files) for files in filled])  # int (m,)
        self.unreadable = {}  # position among `files` -> reason

    @property
    def lost_listings(self) -> np.ndarray:
        "The listings none of whose pictures can be read."
        return np.setdiff1d(self.listings, self.listings[self._is_readable])

    @property
    def of_lost_listings(self) -> np.ndarray:
        "The positions of their pictures."
        return np.flatnonzero(np.isin(self.listings, self.lost_listings))

    @property
    def _is_readable(self):
        is_readable = np.ones(len(self.files), bool)
        is_readable[list(self.unreadable)] = False
        return is_readable

    def lost(
        self,
        positions,  # Some of the pictures
    ) -> list:  # Those of them that can't be read
        "Which pictures of these can't be read, in their order."
        return sorted(set(map(int, positions)) & set(self.unreadable))

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        "Positions of readable pictures, and the listing of each among those that have one, from 0."
        kept = np.flatnonzero(self._is_readable)
        return kept, np.unique(self.listings[kept], return_inverse=True)[1]
