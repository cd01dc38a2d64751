"""Which column of a table of listings plays which role.

`Columns` is one object, taken by every call that reads a table, in place of an argument for each column.
"""
from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of

from ..core import InputError, preview, unknown_option

# fastai's words for the same roles, accepted wherever a column is named by keyword
FASTAI_NAMES = {'fn_col': 'image', 'text_col': 'title', 'label_col': 'group'}


@dataclass(frozen=True)
class Columns:
    "The name of each role's column; None where the table has none, or where it should not be read."
    id: str | None = 'posting_id'  # Names a listing; no two rows have the same
    # Image file, relative to the folder of the images; for matching also several, see data/pictures.py
    image: str | None = 'image'
    # Title; a list of columns is put together as sentences, a dict as a text with names: {'title': 'text',
    # 'price': 'number:USD'} gives 'title: sony tv | price: 399 USD', in this order, see data/serialise.py
    title: str | list | dict | None = 'title'
    # Equal for listings of the same product; the class in classification, where it may also be a list: of a
    # column of probabilities for each class
    group: str | list | None = 'label_group'
    fold: str | None = None  # Part of the split that a listing belongs to: whole numbers, or True and False
    phash: str | None = None  # Perceptual hash of the picture, 16 hex digits
    source: str | None = None  # Where a listing comes from: a shop, a seller, a table
    # Further columns that are compared: name -> `Field` or its kind, {'price': 'number', 'brand': 'category'}
    fields: dict = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.fields, dict):
            raise InputError(f'fields={self.fields!r}: give a dict, {{"price": "number", "code": "code"}}')
        taken = {role for role in ROLES if getattr(self, role) is not None} & set(self.fields)
        if taken: raise InputError(f'fields named {preview(sorted(taken))}: roles have these names')
        # plain values, as a saved matcher keeps them
        if isinstance(self.title, dict):
            from .serialise import title_fields
            object.__setattr__(self, 'title', title_fields(self.title))
        if self.fields: object.__setattr__(self, 'fields', _with_headers(self.fields))

    def __setstate__(self, state):
        # a Learner that an earlier version exported knows no fields
        self.__dict__.update({'fields': {}, **state})

    @classmethod
    def resolve(
        cls,
        columns: 'Columns | dict | None',  # An object of this class, or {keyword: name}; None: `default`
        keywords: dict,  # Columns by keyword, which win over `columns`: `image_col=`, fastai's `fn_col=`
        default: 'Columns | None' = None,  # Names of the roles that nobody named; None: `Columns()`
    ) -> 'Columns':
        """The columns that a call means.

        Raises `InputError` for an unknown keyword, with the nearest known one, and for two keywords of one
        role that differ.
        """
        resolved = cls() if default is None else default
        if isinstance(columns, dict): resolved = replace(resolved, **_by_role(columns))
        elif isinstance(columns, Columns): resolved = columns
        elif columns is not None:
            raise InputError(f'columns={columns!r}: give a Columns, e.g. Columns(image="photo")')
        return replace(resolved, **_by_role(keywords))

    @classmethod
    def take_from(
        cls,
        keywords: dict,  # Keyword arguments of a call; those that name columns are taken out of it
    ) -> dict:  # {keyword: name}, for `resolve`
        "Take the keywords that name columns, where the rest is handed on to somebody else."
        return {keyword: keywords.pop(keyword) for keyword in list(keywords) if role_of(keyword) is not None}

    @property
    def named(self) -> list[str]:
        "Every column that has a role, those of a title one by one."
        names = [name for name in self.by_keyword().values() if name is not None]
        return [column for name in names for column in (name if isinstance(name, (list, tuple)) else [name])]

    def described(self) -> list[str]:
        "Each role and its column: 'id: sku', 'title: name + brand'."
        named = {role: getattr(self, role) for role in ROLES if getattr(self, role)}
        return [f'{role}: {" + ".join(name) if isinstance(name, (list, tuple)) else name}'
                for role, name in named.items()]

    def by_keyword(self) -> dict:
        "The same as {'id_col': ..., 'image_col': ..., ...}: for messages, json, and calls by keyword."
        return {f'{role}_col': getattr(self, role) for role in ROLES}

    def by_field(self) -> dict:
        "The header of each field by how it is given, {'fields[price]': 'price'}: for messages."
        return {f'fields[{name!r}]': field.column for name, field in self.fields.items()}

    @property
    def headers(self) -> list:
        "The headers of all columns that are read, those of fields too."
        return [*self.by_keyword().values(), *(field.column for field in self.fields.values())]


def _with_headers(fields):
    "Fields given in any form as `Field`s that know their column."
    # here, since the command line's help needs the names of roles alone, and no pandas
    from ..match.fields.field import Field
    fields = {name: Field.of(given) for name, given in fields.items()}
    return {name: replace(given, column=given.column or name) for name, given in fields.items()}


def fields_in_words(
    columns: Columns,  # Of a table
) -> dict:  # Name -> words
    "What each field holds and where it stands: {'price': 'number (EUR) in column cost'}."
    return {name: f'{field.kind}{f" ({field.unit})" if field.unit else ""}'
                  f'{"" if field.column == name else f" in column {field.column}"}'
            for name, field in columns.fields.items()}


# roles that one column plays each
ROLES = [role.name for role in fields_of(Columns) if role.name != 'fields']


def role_of(
    keyword: str,  # 'image_col', 'fn_col', ...
) -> str | None:
    "The role that a keyword names: 'image' for 'image_col' and for 'fn_col'; None where it names none."
    if keyword in FASTAI_NAMES: return FASTAI_NAMES[keyword]
    return keyword.removesuffix('_col') if keyword in keywords_of_roles() else None


def keywords_of_roles() -> list[str]:
    "The keyword of each role: 'id_col', 'image_col', ..."
    return [f'{role}_col' for role in ROLES]


def _by_role(keywords):
    "{keyword: name} as {role: name}."
    by_role = {}
    for keyword, column_name in keywords.items():
        role = role_of(str(keyword))
        if role is None:
            raise unknown_option(keyword, column_name, [*keywords_of_roles(), *FASTAI_NAMES])
        if role in by_role and by_role[role] != column_name:
            raise InputError(f'{keyword}={column_name!r}: the {role} column is {by_role[role]!r} already')
        by_role[role] = column_name
    return by_role


def check_inputs(
    columns: Columns,  # Of the table
):
    "Raise `InputError` where a listing would have neither picture nor title."
    # compared with None, since a column may be named 0
    if columns.image is None and columns.title is None:
        raise InputError('image_col and title_col are both None: a listing needs a picture or a title')
