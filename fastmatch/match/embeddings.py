"""`Embeddings`: vectors by modality with what is known of their listings: ids, titles, groups, hashes, and
how the vectors were made."""
import numpy as np

from ..core import InputError, preview
from .cells import composed, texts_of, tidy, tidy_hashes
from .fields.field import field_columns
from .neighbors import refuse_trained_on
from .spaces.keys import source_space
from .spaces.picture_sets import SIMILARITY, Pictures, PictureSets, check_similarity

SOURCE = 'source'  # the space that says where a listing comes from
# columns of the tables that a matcher gives
TAKEN = ('posting_id', 'match', 'matches', 'where', 'score', 'why', 'probability', 'moved by')
TITLE_SPACES = ('tfidf', 'units', 'same_title', 'titles')  # modalities that are made from the titles


def check_made_alike(
    made_with: dict | None,  # Settings that something was made with; None where that isn't known
    settings: dict | None,  # Settings that it is going to be used with; None where there are none to compare
    what: str,  # What was made with the first, for the message
):
    """Raise `InputError` where two groups of settings differ in an entry that both have, such as 'tta'.

    Embeddings made in another way have other similarities: a threshold chosen on one is wrong for the other.
    """
    for entry_name, wanted in (settings or {}).items():
        made = (made_with or {}).get(entry_name, wanted)
        # json makes lists of tuples
        if isinstance(made, tuple): made = list(made)
        if isinstance(wanted, tuple): wanted = list(wanted)
        if made != wanted:
            raise InputError(f'{what} made with {entry_name}={made!r}, but here {entry_name}={wanted!r}: '
                             'embed with the same settings')


class Embeddings(dict):
    """Vectors by modality ({'image': (n,d), ...}, float32, unit length) of the same listings in the same
    order.

    Listings with several pictures have those of all in `pictures`, {'image': `Pictures`, ...}; what stands
    under the modality is then the mean of each listing's pictures, for all that reads one vector a listing.
    """
    def __init__(
        self,
        vectors: dict,  # Modality -> (n,d) array, or `Pictures` where listings have several
        ids,  # (n,) what names each listing; or modality -> ids, where they come from files that must agree
        titles=None,  # (n,) titles, or None
        groups=None,  # (n,) which listings are the same product, or None where that isn't known
        trained_on=None,  # bool (n,), whether an encoder was trained on this listing; default none
        # (n,) perceptual hashes of the pictures, None where a listing has none, a tuple where it has several;
        # or None
        phash=None,
        labels=None,  # An earlier name of `groups`
        # How the vectors were made: {'tta': True, 'size': [104, 104]}, and with several pictures a listing by
        # which of `SIMILARITIES` two of them are compared: {'pictures': 'best'}
        made_with: dict | None = None,
        # Columns of the table as modalities: name -> (a `Field` or its kind, (n,) cells)
        fields: dict | None = None,
        source=None,  # (n,) where each listing comes from, or None: rules with `apart` read it
    ):
        # a copy of other embeddings has the same pictures
        of_copied = vectors.pictures if isinstance(vectors, Embeddings) else {}
        self.pictures = of_copied | {
            modality: Pictures.of(np.asarray(array.vectors, np.float32), array.listings, modality)
            for modality, array in vectors.items() if isinstance(array, Pictures)}
        super().__init__({modality: self.pictures[modality].means() if isinstance(array, Pictures)
                          else np.asarray(array, np.float32) for modality, array in vectors.items()})
        self.ids = tidy(_common_ids(ids) if isinstance(ids, dict) else ids, 'ids')
        n_listings = len(self.ids)
        self.titles = None if titles is None else _as_texts(titles)
        groups_keyword = 'groups' if groups is not None else 'labels'
        if groups is None: groups = labels
        self.groups = None if groups is None else tidy(groups, groups_keyword)
        self.phash = None if phash is None else tidy_hashes(phash)
        # a copy with other groups or titles, `Embeddings(emb, emb.ids, ...)`, has the same vectors
        if isinstance(vectors, Embeddings):
            if made_with is None: made_with = vectors.made_with
            if trained_on is None: trained_on = vectors.trained_on
            if fields is None: fields = vectors.fields
            if source is None: source = vectors.source
        self.fields = field_columns(fields or {}, n_listings)
        self.source = None if source is None else texts_of(source)
        self._check_names()
        self.made_with = None if made_with is None else dict(made_with)
        if self.pictures:
            self.made_with = {**(made_with or {}), 'pictures': check_similarity(self.similarity)}
        self.trained_on = np.zeros(n_listings, bool) if trained_on is None else np.asarray(trained_on, bool)
        arrays = {**self, 'titles': self.titles, groups_keyword: self.groups, 'trained_on': self.trained_on,
                  'phash': self.phash, 'source': self.source}
        for column_name, column in arrays.items():
            if column is not None and len(column) != n_listings:
                raise InputError(f'{column_name}: {len(column)} rows for {n_listings} ids')

    @property
    def similarity(self) -> str:
        "How listings of several pictures are compared, one of `SIMILARITIES`."
        return (self.made_with or {}).get('pictures', SIMILARITY)

    def compared_by(
        self,
        similarity: str,  # One of `SIMILARITIES`
    ) -> 'Embeddings':
        "The same embeddings whose listings of several pictures are compared in another way."
        made_with = {**(self.made_with or {}), 'pictures': check_similarity(similarity)}
        return Embeddings(self, self.ids, self.titles, self.groups, self.trained_on, self.phash,
                          made_with=made_with)

    @property
    def labels(self):
        "An earlier name of `groups`."
        return self.groups

    def __len__(self): return len(self.ids)  # listings; modalities are counted by `len(emb.keys())`

    def __repr__(self):
        widths = ', '.join(f'{modality} {array.shape[1]}-d' for modality, array in self.items())
        return f'Embeddings({len(self)} listings: {widths})'

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'Embeddings':
        "The embeddings of some of the listings, with all that is known of them."
        rows = np.arange(len(self))[rows]
        return Embeddings(
            {modality: self.pictures[modality].take(rows) if modality in self.pictures else vectors[rows]
             for modality, vectors in self.items()}, self.ids[rows],
            None if self.titles is None else [self.titles[row] for row in rows],
            None if self.groups is None else self.groups[rows], self.trained_on[rows],
            None if self.phash is None else self.phash[rows], made_with=self.made_with,
            fields={name: column.take(rows) for name, column in self.fields.items()},
            source=None if self.source is None else self.source[rows])

    def refuse_trained_on(
        self,
        what: str,  # What they would be used for, for the message
    ) -> 'Embeddings':
        """Return `self`, or raise `InputError` where an encoder was trained on some rows: their
        similarities are near 1 and mislead `what`."""
        refuse_trained_on(self.trained_on, what, self.ids)
        return self

    def spaces(
        self,
        tfidf: bool = True,  # Add the titles' character TF-IDF as a modality of its own, 'tfidf'
        # Modalities to give; default all but 'joint', 'units', 'same_title', 'titles'
        only: tuple | None = None,
    ) -> dict:  # Modality -> `Dense`, `PictureSets`, `Tfidf`, `Keys` or `Units`
        """Each modality as a space to search, which is what `candidates` takes; known perceptual hashes
        become the exact key 'phash'."""
        from .spaces.dense import Dense
        from .spaces.keys import Keys, title_keys
        from .spaces.tfidf import Tfidf
        from .spaces.titles import Titles
        from .spaces.units import Units
        if only is None:
            # 'joint' repeats what the other vectors say
            modalities = [modality for modality in self if modality != 'joint' or len(self.keys()) == 1]
            made_spaces = {'tfidf'} if tfidf and self.titles is not None else set()
            if self.phash is not None: made_spaces.add('phash')
            field_names = list(self.fields)
        else:
            made_spaces = {*TITLE_SPACES, 'phash', SOURCE} & set(only)
            field_names = [name for name in only if name in self.fields]
            modalities = [name for name in only if name not in made_spaces and name not in self.fields]
        self._check_available(modalities, made_spaces)
        spaces = {modality: self._sets(modality) if modality in self.pictures
                  else Dense(self[modality], modality) for modality in modalities}
        # a rule that is chosen on these spaces remembers how their vectors were made, and is refused where
        # an encoder was trained on these listings
        for space in spaces.values(): space.made_with, space.trained_on = self.made_with, self.trained_on
        if 'tfidf' in made_spaces: spaces['tfidf'] = Tfidf(self.titles)
        for name in field_names: spaces[name] = self.fields[name].field.space(name, self.fields[name].cells)
        if SOURCE in made_spaces: spaces[SOURCE] = source_space(self.source)
        if 'phash' in made_spaces: spaces['phash'] = Keys(self.phash)
        if 'units' in made_spaces: spaces['units'] = Units(self.titles)
        if 'titles' in made_spaces: spaces['titles'] = Titles(self.titles)
        if 'same_title' in made_spaces: spaces['same_title'] = Keys(title_keys(self.titles))
        return spaces

    def _sets(self, modality): return PictureSets(*self.pictures[modality], modality, self.similarity)

    def _check_available(self, modalities, made_spaces):
        from_titles = [modality for modality in TITLE_SPACES if modality in made_spaces]
        if self.titles is None and from_titles:
            raise InputError(f'{from_titles[0]!r} needs titles: the embeddings hold none')
        if self.phash is None and 'phash' in made_spaces:
            raise InputError("'phash' needs perceptual hashes: the embeddings hold none")
        if self.source is None and SOURCE in made_spaces:
            raise InputError("'source' needs to know where each listing comes from: the embeddings don't")
        unknown = [modality for modality in modalities if modality not in self]
        if unknown: raise InputError(f'{unknown}: the embeddings hold {[*self, *self.fields]}')

    def _check_names(self):
        taken = set(self.fields) & {*self, *TITLE_SPACES, 'phash', SOURCE, 'fused', *TAKEN}
        if taken:
            raise InputError(f'fields named {sorted(taken)}: modalities have these names, or columns of '
                             'results; give others, {"my_name": Field(kind, column=...)}')


def _as_texts(titles):
    """Titles as a list of strings; raises `InputError` for missing ones, which would be equal texts
    ('None', 'nan') and match each other."""
    from pandas import isna
    titles = list(titles)
    missing_rows = [row_number for row_number, title in enumerate(titles) if isna(title)]
    if missing_rows: raise InputError(f'titles: rows {preview(missing_rows)} are missing')
    return [composed(str(title)) for title in titles]


def _common_ids(ids_by_modality):
    """The ids that all modalities have in one order; raises `InputError` naming the first row where two
    modalities differ."""
    ids_as_arrays = ((modality, np.asarray(ids)) for modality, ids in ids_by_modality.items())
    (first_modality, first_ids), *others = ids_as_arrays
    for modality, ids in others:
        if len(ids) != len(first_ids):
            raise InputError(f'{modality}: {len(ids)} ids, {first_modality}: {len(first_ids)}')
        differing_rows = np.flatnonzero(texts_of(ids) != texts_of(first_ids))
        if differing_rows.size:
            row_number = differing_rows[0]
            same_listings = set(texts_of(ids)) == set(texts_of(first_ids))
            difference = (f'{modality}: row {row_number} is {str(ids[row_number])!r}, '
                          f'in {first_modality} it is {str(first_ids[row_number])!r}')
            reason = 'the same listings in another order' if same_listings else 'other listings'
            raise InputError(f'{difference}: {reason}')
    return first_ids


def _plain(setting):
    "A setting as json would give it back: tuples as lists."
    if isinstance(setting, (list, tuple)): return [_plain(element) for element in setting]
    return setting
