"Which column of a table of listings plays which role: one object, taken by every call that reads a table."
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches

from ..core import InputError

# fastai's words for the same roles, accepted wherever a column is named by keyword
FASTAI_NAMES = {'fn_col': 'image', 'text_col': 'title', 'label_col': 'group'}


@dataclass(frozen=True)
class Columns:
    "The name of each role's column in a table of listings; None where the table has none or where it should not be read."
    id: str | None = 'posting_id'  # Names a listing, unique
    image: str | None = 'image'  # Image file, relative to the folder of the images
    title: str | list | None = 'title'  # Title; several columns of text where a call says that it takes them
    group: str | None = 'label_group'  # Listings with the same value are the same product; a class where items are classified
    fold: str | None = None  # Whole numbers that say which part a listing belongs to
    phash: str | None = None  # Perceptual hashes

    @classmethod
    def resolve(
        cls,
        columns: 'Columns | dict | None',  # An object of this class, or {keyword: name}; None: `default`
        keywords: dict,  # Single columns by keyword, which win: `image_col='photo'`, or fastai's `fn_col='photo'`
        default: 'Columns | None' = None,  # What holds for a role that nobody named; default `Columns()`
    ) -> 'Columns':
        "The columns that a call means; an unknown keyword raises `InputError` with the nearest known one."
        res = cls() if default is None else default
        if isinstance(columns, dict): keywords = {**columns, **keywords}
        elif isinstance(columns, Columns): res = columns
        elif columns is not None: raise InputError(f'columns={columns!r}: give a Columns, e.g. Columns(image="photo")')
        found = {}
        for keyword, name in keywords.items():
            role = role_of(keyword)
            if role is None:
                near = get_close_matches(keyword, [*keywords_of_roles(), *FASTAI_NAMES], n=1)
                raise InputError(f'{keyword}={name!r}: no option' + (f' (did you mean {near[0]}?)' if near else ''))
            if role in found and found[role] != name: raise InputError(f'{keyword}={name!r}: the {role} column is {found[role]!r} already')
            found[role] = name
        return replace(res, **found)

    @classmethod
    def take_from(
        cls,
        keywords: dict,  # Of a call that hands the rest on: those that name columns are taken out
    ) -> dict:
        "The keywords that name columns."
        return {keyword: keywords.pop(keyword) for keyword in list(keywords) if role_of(keyword) is not None}

    def by_keyword(self) -> dict:
        "The same as {'id_col': ..., 'image_col': ..., ...}: for messages, json, and calls by keyword."
        return {f'{role}_col': name for role, name in asdict(self).items()}


def role_of(
    keyword: str,  # 'image_col', 'fn_col', ...
) -> str | None:
    "The role that a keyword names, None where it names none."
    role = FASTAI_NAMES.get(keyword) or keyword.removesuffix('_col')
    return role if keyword in FASTAI_NAMES or (keyword.endswith('_col') and role in {o.name for o in fields(Columns)}) else None


def keywords_of_roles() -> list[str]:
    "The keyword of each role: 'id_col', 'image_col', ..."
    return [f'{o.name}_col' for o in fields(Columns)]
