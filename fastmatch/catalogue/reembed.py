"Every listing of a catalogue embedded anew, by another encoder: a call that may be killed and made again."
import json
from dataclasses import replace

import pandas as pd
from tqdm import tqdm

from ..core import InputError, preview
from .catalogue import Catalogue, Options
from .fingerprints import encoder_fingerprint, rule_fingerprint, vector_widths
from .schema import WAIT, writing
from .settle import Changes

PIECE = 512  # listings whose vectors are written together


def reembed(
    file,  # Of the catalogue
    matcher,  # `Matcher` with the new encoder and its rule
    path='.',  # Folder of the images, from which the kept file names start
    *,
    bs: int = 64,  # Listings a batch of the encoder
    wait: float = WAIT,  # Seconds to wait while another process writes
) -> Changes:
    """Embed all listings by the matcher's encoder, then group them by its rule; verdicts and numbers of
    groups stay. Until the end the catalogue stays as it was, and can be used with its matcher; what was
    embedded before a kill is kept for the next call."""
    if matcher.encoder is None: raise InputError('the matcher has no encoder: nothing to embed listings with')
    catalogue = Catalogue(file, wait=wait)
    try:
        encoder, widths = encoder_fingerprint(matcher), vector_widths(matcher)
        if encoder == catalogue.record.setting('encoder'):
            raise InputError(f'{file}: its vectors were made by this encoder already')
        with tqdm(total=len(catalogue), desc='embed', delay=2) as bar:
            while waiting := _waiting(catalogue.record, encoder):
                embeddings, numbers = _embedded(catalogue.record, matcher, waiting, path, bs)
                with writing(catalogue.record.connection, file):
                    catalogue.record.add_vectors(embeddings, numbers, encoder)
                bar.update(len(numbers))
        return _switch(catalogue, matcher, encoder, widths)
    finally: catalogue.close()


def _waiting(record, encoder):
    "Numbers of the next listings without vectors of the new encoder."
    rows = record.execute('select number from listing where removed is null and not exists (select 1 from '
                          'vector where listing = number and encoder = ?) order by number limit ?',
                          (encoder, PIECE))
    return [number for number, in rows]


def _embedded(record, matcher, numbers, path, bs):
    from ..matcher.listings import embed_listings
    columns = replace(matcher.columns, id='posting_id', title='title', image='image', phash='phash',
                      source=None if matcher.columns.source is None else 'source')
    rows = record.rows('select number, id, title, pictures, phash, source, fields from listing where number '
                       'in (select value from json_each(?))', numbers)
    without = [row[1] for row in rows if row[3] is None]
    if 'image' in matcher.inputs and without:
        raise InputError(f'no file names of pictures are kept of: {preview(without)}; add them anew, as a '
                         'table that names files')
    table = pd.DataFrame({'posting_id': [row[1] for row in rows], 'title': [row[2] for row in rows],
                          'image': [json.loads(row[3] or 'null') for row in rows],
                          'phash': [json.loads(row[4] or 'null') for row in rows],
                          'source': [row[5] for row in rows]})
    read = [json.loads(row[6] or '{}') for row in rows]
    for name, field in columns.fields.items(): table[field.column] = [cells.get(name) for cells in read]
    embeddings, _ = embed_listings(table, path, columns, matcher.rule, matcher.encoder, bs)
    return embeddings, pd.Series([row[0] for row in rows]).to_numpy()


def _switch(catalogue, matcher, encoder, widths):
    "From the old vectors to the new ones, in one event."
    record = catalogue.record

    def take_new_vectors():
        if _waiting(record, encoder):
            raise InputError(f'{catalogue.file}: listings were added meanwhile: call it again')
        record.execute('delete from vector where encoder != ?', (encoder,))
        for name, content in (('encoder', encoder), ('widths', widths), ('rule', rule_fingerprint(matcher)),
                              ('threshold', matcher.rule.at(max(1, record.count())).threshold)):
            record.keep_setting(name, content)

    catalogue.matcher = matcher
    with catalogue._event('embed', Options('', 'another encoder', False), {}, prepare=take_new_vectors) as (
            event, finding):
        changes = catalogue._settle(event, finding.all_anew())
    return replace(changes, kind='embed')
