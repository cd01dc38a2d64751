"Further columns of a table as the command line names them: `--field price:number`."
from dataclasses import replace

from ..core import InputError, preview
from ..data.columns import ROLES, Columns, fields_in_words
from ..data.kinds import kind_of, recognise_fields
from ..data.table import recognise
from ..match.embeddings import SOURCE, TAKEN, TITLE_SPACES
from ..match.fields.field import KINDS, Field

MODALITIES = 'image', 'title', 'joint', 'fused', 'phash', SOURCE, *TITLE_SPACES
AUTO = 'auto'  # in place of a name: every column that something can be made of


def with_fields(
    columns: Columns,  # Of the table, without fields
    listings,  # DataFrame
    given,  # 'price:number', 'weight:number:kg', 'brand' (the kind is recognised), or 'auto'
    echo=print,  # Called with a line of text
) -> Columns:
    """The columns with the fields that were named; raises `InputError` for one that the table lacks.

    Only those are used. Others that could be are said, with the option that takes them.
    """
    fields = {}
    for text in given:
        if text == AUTO: continue
        name, field = read_field(text, listings)
        name = _free_name(name)
        if name in fields: raise InputError(f'--field {text}: {name} is named twice')
        fields[name] = field
    columns = replace(columns, fields=fields)
    recognised = _recognised(listings, columns)
    if AUTO in given: columns = replace(columns, fields=recognised)
    if columns.fields:
        words = [f'{name}: {said}' for name, said in fields_in_words(columns).items()]
        echo(f'compared besides: {", ".join(words)}')
    others = [f'--field {field.column}:{field.kind}' for name, field in recognised.items()
              if name not in columns.fields]
    if others: echo(f'further columns, not used; to compare them: {preview(others)}')
    return columns


def _free_name(header):
    "The header as the name of a field, which no role and no column of results has."
    return f'{header} column' if header in (*ROLES, *TAKEN, *MODALITIES) else header


def _recognised(listings, columns):
    "The fields given and those recognised; what usually plays a role, such as a picture, is none."
    roles = recognise(listings, required=(), max_title=None).by_keyword().values()
    found = recognise_fields(listings, columns)
    return {**columns.fields, **{_free_name(header): field for header, field in found.items()
                                 if header not in columns.fields and field.column not in roles}}


def read_field(
    text: str,  # 'name', 'name:kind' or 'name:kind:unit'; a name may hold colons itself
    listings,  # DataFrame
) -> tuple[str, Field]:
    "A field as the command line names it; without a kind it is recognised by header and cells."
    parts = text.split(':')
    if len(parts) > 1 and parts[-1] in KINDS: name, field = ':'.join(parts[:-1]), Field(parts[-1])
    elif len(parts) > 2 and parts[-2] in KINDS:
        name, field = ':'.join(parts[:-2]), Field(parts[-2], unit=parts[-1])
    else: name, field = text, None
    if name not in listings:
        kinds = f'; kinds: {", ".join(KINDS)}' if field is None and len(parts) > 1 else ''
        raise InputError(f'--field {text}: the table has no column {name!r}{kinds}; its columns: '
                         f'{", ".join(map(str, listings.columns))}')
    if field is None:
        kind = kind_of(listings[name])
        if kind is None: raise InputError(f'--field {text}: the same cell everywhere, or none')
        field = Field(kind)
    return name, replace(field, column=name)


def columns_of_fields(
    given,  # 'price:cost': the field `price` of the matcher stands in the column `cost`
    fields: dict,  # Name -> `Field` of the matcher
    listings,  # DataFrame of new listings
) -> dict:  # Name -> column of the new listings
    "Where the fields of a matcher stand in another table; by default in columns of the same name."
    found = {name: field.column for name, field in fields.items()}
    for text in given:
        name, _, column = text.partition(':')
        name = next((known for known in fields if text.startswith(f'{known}:')), name)
        column = text[len(name) + 1:]
        if name not in fields:
            known = ', '.join(fields) or 'none'
            raise InputError(f'--field {text}: the fields of this matcher: {known}')
        # as the training was told
        if column not in listings and column.split(':')[0] == fields[name].kind: continue
        if column not in listings:
            raise InputError(f'--field {text}: the table has no column {column!r}; its columns: '
                             f'{", ".join(map(str, listings.columns))}')
        found[name] = column
    return found
