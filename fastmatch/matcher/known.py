"The known listings of a matcher, ready to be searched, and the checks on ids of listings."
from dataclasses import dataclass, replace

import numpy as np

from ..core import InputError, preview
from ..match import Dense, Embeddings, Keys, PictureSets, Rule, Tfidf, Units
from ..match.cells import texts_of
from ..match.embeddings import SOURCE
from ..match.spaces.keys import source_space, title_keys
from ..match.spaces.picture_sets import alike
from ..match.spaces.titles import Titles

# made from titles, without an encoder
TITLE_SPACES = {'tfidf': Tfidf, 'units': Units, 'same_title': Keys, 'titles': Titles}


def check_blanks(
    ids,  # Strings, of listings
    what: str,  # What to call them in the message
):
    "Raise `InputError` where an id has a blank in it: matches are written as ids with blanks between them."
    with_blanks = [listing for listing in ids if listing.strip() and listing.split() != [listing]]
    if with_blanks:
        raise InputError(f'{what}: ids with blanks in them, which a list of matches is separated by: '
                         f'{preview(map(repr, with_blanks))}')


def check_ids(
    ids,  # (n,) what names each listing
    what: str,  # What to call the listings in messages
) -> np.ndarray:  # str (n,)
    "The ids as text; raises `InputError` where one is given twice, is empty, or has a blank in it."
    texts = texts_of(ids)
    if any(text is None or not text.strip() for text in texts): raise InputError(f'{what}: an id is empty')
    ids_as_text = texts.astype(str)
    distinct_ids, counts = np.unique(ids_as_text, return_counts=True)
    if (counts > 1).any(): raise InputError(f'{what}: ids given twice: {preview(distinct_ids[counts > 1])}')
    check_blanks(ids_as_text, what)
    return ids_as_text


@dataclass
class KnownListings:
    "The known listings: what names each, and one space to search for each modality that a rule reads."
    ids: np.ndarray  # str (n,)
    titles: list | None  # n strings, or None
    trained_on: np.ndarray  # bool (n,): the encoder was trained on this listing
    # Modality -> space of n listings (`Dense`, `PictureSets`, `Tfidf`, `Units`, `Keys` or a column)
    spaces: dict
    made_with: dict | None = None  # Settings of the embeddings (`embedding_settings`), None where not known

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Embeddings,  # Of the known listings
        rule: Rule,  # Says which modalities are needed
    ) -> 'KnownListings':
        "The catalogue of listings that are embedded already."
        return cls(check_ids(embeddings.ids, 'catalogue'), embeddings.titles, embeddings.trained_on,
                   make_spaces(embeddings, rule.reads, pictures=pictures_of(rule)), embeddings.made_with)

    def __len__(self): return len(self.ids)

    def spaces_of(
        self,
        new: Embeddings,  # Of other listings
    ) -> dict:
        "The other listings' spaces, in the vocabularies of this catalogue, to be searched together with it."
        return make_spaces(new, list(self.spaces), like=self.spaces)

    def take(
        self,
        keep: np.ndarray,  # bool (n,), at least one of them true
    ) -> 'KnownListings':
        "A catalogue of some of the listings."
        titles = None if self.titles is None else [self.titles[row] for row in np.flatnonzero(keep)]
        return replace(self, ids=self.ids[keep], titles=titles, trained_on=self.trained_on[keep],
                       spaces={modality: space.take(keep) for modality, space in self.spaces.items()})

    def append(
        self,
        new: Embeddings,  # Of listings that aren't in it yet
    ) -> 'KnownListings':
        "A catalogue of these listings and, behind them, the new ones."
        new_ids = check_ids(new.ids, 'new listings')
        is_known = np.isin(new_ids, self.ids)
        if is_known.any():
            raise InputError(f'in the catalogue already: {preview(new_ids[is_known])}; remove them first')
        if self.titles is not None and new.titles is None:
            raise InputError('the catalogue has titles, the new listings have none')
        new_spaces = self.spaces_of(new)
        return replace(self, ids=np.concatenate([self.ids, new_ids]),
                       titles=None if self.titles is None else self.titles + new.titles,
                       trained_on=np.concatenate([self.trained_on, new.trained_on]),
                       spaces={modality: _appended(space, new_spaces[modality])
                               for modality, space in self.spaces.items()})

    def without(
        self,
        ids,  # One id or several, all of them in the catalogue
    ) -> 'KnownListings':
        "A catalogue that lacks some of the listings."
        ids = texts_of([ids] if np.ndim(ids) == 0 else ids).astype(str)
        is_unknown = ~np.isin(ids, self.ids)
        if is_unknown.any(): raise InputError(f'not in the catalogue: {preview(ids[is_unknown])}')
        is_kept = ~np.isin(self.ids, ids)
        if not is_kept.any(): raise InputError('that would leave an empty catalogue')
        return self.take(is_kept)


def _appended(space, more):
    space, more = alike(space, more)
    return space.append(more)


def pictures_of(
    rule: Rule,
) -> str | None:
    """How a rule compares listings of several pictures, one of `SIMILARITIES`; None where it was chosen on
    listings of one picture each."""
    return (rule.made_with or {}).get('pictures')


def make_spaces(
    embeddings: Embeddings,  # Of n listings
    modalities: list,  # As `Rule.reads` names them
    like: dict | None = None,  # Modality -> space whose vocabulary and width the new one must share
    pictures: str | None = None,  # How pictures are compared, as `pictures_of` the rule; None: as embedded
) -> dict:
    "One space of the n listings for each modality; raises `InputError` where the listings lack one."
    spaces = {}
    for modality in modalities:
        if modality in TITLE_SPACES:
            if embeddings.titles is None:
                raise InputError(f'the rule needs titles for {modality!r}: the listings have none')
            texts = title_keys(embeddings.titles) if modality == 'same_title' else embeddings.titles
            make_space = TITLE_SPACES[modality] if like is None else like[modality].transform
            spaces[modality] = make_space(texts)
        elif modality == 'phash':
            # a listing without a picture has no hash, and is joined with none
            hashes = np.full(len(embeddings), None, object) if embeddings.phash is None else embeddings.phash
            make_space = Keys if like is None else like[modality].transform
            spaces[modality] = make_space(hashes)
        elif modality == SOURCE:
            if embeddings.source is None:
                raise InputError('the rule keeps listings of one source apart: of these it is not known')
            make_space = source_space if like is None else like[modality].transform
            spaces[modality] = make_space(embeddings.source)
        elif modality in embeddings.fields:
            column = embeddings.fields[modality]
            spaces[modality] = (column.field.space(modality, column.cells) if like is None
                                else like[modality].transform(column.cells))
        elif modality not in embeddings:
            known = [*embeddings, *embeddings.fields]
            raise InputError(f'the rule needs the modality {modality!r}: the listings have {known}')
        else:
            spaces[modality] = _vectors(embeddings, modality, pictures, (like or {}).get(modality))
            if like is not None and like[modality].dim != spaces[modality].dim:
                raise InputError(f'{modality}: queries have {spaces[modality].dim} dimensions, '
                                 f'the listings {like[modality].dim}')
    return spaces


def _vectors(embeddings, modality, pictures, like):
    """`Dense`, or `PictureSets` where listings have several pictures, where the rule was chosen on such, and
    where the listings that they are compared with do."""
    if isinstance(like, PictureSets): pictures = like.similarity
    if modality not in embeddings.pictures:
        space = Dense(embeddings[modality], modality)
        # a model of pairs that was fitted to sets reads what sets alone tell; of titles there are none
        is_set = isinstance(like, PictureSets) or (like is None and pictures and modality != 'title')
        return PictureSets.of_one_each(space, pictures) if is_set else space
    return PictureSets(*embeddings.pictures[modality], modality, pictures or embeddings.similarity)
