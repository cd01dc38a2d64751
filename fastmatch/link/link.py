"`match_tables`: two shops' tables in, which listing is which out."
from dataclasses import replace

import numpy as np
import pandas as pd

from ..core import InputError
from ..data.columns import Columns
from ..match.pairs.model import PairModel
from .assign import assigned, check_way
from .candidates import TablePairs
from .distil import distilled
from .known import KnownLabels
from .learn import EVEN, Learnt, figures_as_used, learn_from_labels, learn_from_tables
from .rescore import Rereading, learn_close
from .result import TableMatches
from .tables import Tables
from .texts import PairTexts

NEAREST = 50  # candidates of each column


def match_tables(
    left: pd.DataFrame,  # A row a listing
    right: pd.DataFrame,  # A row a listing of the other shop
    # Of both tables, `fields` among them, or a pair (of the left, of the right); None: recognised
    columns: Columns | tuple | None = None,
    *,
    # Pairs that are known: `left_id`, `right_id`, `label` (1 or 0); without labels they are all the matches
    # of the left listings that they name. None: learns from the tables alone
    known: pd.DataFrame | None = None,
    how: str = 'one-to-one',  # 'one-to-one', 'one-to-many', 'many-to-one' or 'free'
    # `learnt` of an earlier result on tables with the same fields, or a fitted `PairModel`: nothing is
    # learned. `PairModel(classifier)` says what is fitted, `Rereading` that a cross-encoder reads close pairs
    # again; None: boosted trees
    model: 'PairModel | Learnt | Rereading | None' = None,
    threshold: float | None = None,  # Probability from which a pair matches; None: chosen on the known pairs
    vectors: dict | None = None,  # Modality -> (vectors of the left, of the right listings), from encoders
    k: int = NEAREST,  # Candidates of each column
    seed: int = 0,  # Of the model and of the parts that it is judged on
    echo=None,  # Called with a line of text at each stage; None: says nothing
) -> TableMatches:
    """Match the listings of two tables; a listing never matches its own table.

    Candidates come from every text, code and encoder; a model of pairs weighs all columns, how the candidate
    ranks among all others on both sides, and what the texts have in common. Raises `InputError` naming table,
    column and rows of what can't be used.
    """
    check_way(how)
    say = echo or (lambda line: None)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f'k={k!r}: give a whole number from 1')
    if threshold is not None and not 0 <= threshold <= 1: raise InputError(f'threshold={threshold}: 0 to 1')
    model = _as_wanted(model, known)
    tables = Tables.of(left, right, *(columns if isinstance(columns, tuple) else (columns, columns)))
    in_words = ', '.join(f'{name} ({field.kind})' for name, field in tables.fields.items())
    say(f'{len(tables.left)} and {len(tables.right)} listings; compared by {in_words}')
    labels = None if known is None else KnownLabels.of(known, tables)
    embeddings = tables.embeddings(_stacked(vectors, tables))
    fitted_before = model.model if isinstance(model, Learnt) else None
    if fitted_before is None: embeddings = with_synonyms(embeddings, labels, len(tables.left))
    found = TablePairs.search(embeddings, len(tables.left), k, fitted_before)
    blocking = _blocking(found, labels)
    say(f'{len(found)} candidate pairs')
    if labels is not None: found = found.with_pairs(labels.left, labels.right, fitted_before)
    texts = PairTexts.of(tables) if _reads_texts(model) else None
    if isinstance(model, Learnt): learnt = replace(model, figures={}, unseen=None)
    elif labels is None: learnt = learn_from_tables(found, seed)
    else: learnt = _from_labels(found, labels, texts, model, echo, seed)
    if threshold is not None: learnt.set_threshold(threshold)
    probabilities = learnt.probabilities(found, texts and texts.at(found))
    if learnt.unseen is not None: learnt.figures = figures_as_used(found, learnt, probabilities, how, seed)
    result = TableMatches(_matches(tables, found, probabilities, learnt.threshold, how), tables, found,
                          probabilities, learnt, how, blocking, texts)
    say(repr(result))
    return result


def _as_wanted(model, known):
    """How pairs are judged: `Learnt` where that was learned before, `Rereading` with a cross-encoder,
    otherwise a `PairModel` to be fitted."""
    if model is None: return PairModel()
    if isinstance(model, PairModel): return model if model.names is None else Learnt(model, EVEN)
    if isinstance(model, Learnt): return model
    if not isinstance(model, Rereading):
        raise InputError(f'model={model!r}: give a PairModel, a Rereading or an earlier result\'s `learnt`')
    if known is None:
        raise InputError('model=Rereading(...): a cross-encoder learns from labelled pairs: give known')
    return model


def _reads_texts(model):
    return isinstance(model, Rereading) or (isinstance(model, Learnt) and model.close is not None)


def _from_labels(found, labels, texts, model, echo, seed):
    "What labelled pairs teach, a cross-encoder too where one is wanted."
    places, same = labels.among(found.left, found.places(labels.left, labels.right))
    if not isinstance(model, Rereading):
        return learn_from_labels(found, places, same, model.classifier, seed)
    texts_of = texts.at(found)

    def reread(probabilities, parts):
        options = {'echo': echo, 'seed': seed, **model.options}
        return learn_close(model.cross_encoder, *texts_of(places), same, probabilities, parts, **options)
    learnt = learn_from_labels(found, places, same, model.classifier, seed, reread)
    if not model.distil: return learnt
    return distilled(found, places, same, learnt, texts_of, classifier=model.classifier, seed=seed)


def _matches(tables, found, probabilities, threshold, how):
    "The matches as a table, the likeliest first."
    likely = np.flatnonzero(probabilities.astype(np.float64) >= threshold)
    kept = likely[assigned(found.left[likely], found.right[likely], probabilities[likely], how)]
    kept = kept[np.argsort(-probabilities[kept], kind='stable')]
    similarities = {name: found.spaces[name].scores(found.pairs.rows[kept], found.pairs.ids[kept])
                    for name in found.spaces}
    return pd.DataFrame({'left_id': tables.left_ids[found.left[kept]],
                         'right_id': tables.right_ids[found.right[kept]],
                         'probability': probabilities[kept], **similarities})


def _blocking(found, labels):
    "Which share of the known matches the search finds, without being told of them."
    if labels is None or not labels.same.any(): return {}
    is_found = found.places(labels.left[labels.same], labels.right[labels.same]) >= 0
    n_right = len(found.sources) - found.n_left
    return {'recall': round(float(is_found.mean()), 5), 'matches': int(labels.same.sum()),
            'pairs': len(found), 'of_all_pairs': round(len(found) / (found.n_left * n_right), 6)}


def with_synonyms(embeddings, labels, n_left):
    "The embeddings with the synonyms of categories that known matches show."
    if labels is None or not labels.same.any(): return embeddings
    rows, ids = labels.left[labels.same], labels.right[labels.same] + n_left
    for name, column in list(embeddings.fields.items()):
        if column.field.kind != 'category': continue
        learnt = column.field.space(name, column.cells).learnt(rows, ids)
        embeddings.fields[name] = column._replace(field=column.field.with_synonyms(learnt.synonyms))
    return embeddings


def _stacked(vectors, tables):
    "The vectors of both tables one behind the other."
    stacked = {}
    for name, pair in (vectors or {}).items():
        if len(pair) != 2: raise InputError(f'vectors[{name!r}]: give two arrays, (left, right)')
        lengths = tuple(len(array) for array in pair)
        if lengths != (len(tables.left), len(tables.right)):
            raise InputError(f'vectors[{name!r}]: {lengths} rows for {len(tables.left)} and '
                             f'{len(tables.right)} listings')
        stacked[name] = np.concatenate([np.asarray(array, np.float32) for array in pair])
    return stacked
