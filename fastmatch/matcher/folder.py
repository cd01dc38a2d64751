"A matcher's folder: its parts as files (json and safetensors, no pickle), and the files as parts again."
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..core import InputError, MissingPackage, package_version
from ..data.columns import Columns
from ..match import Dense, Keys, PictureSets, Rule, Tfidf, Units
from ..match.cells import texts_of
from ..match.embeddings import SOURCE
from ..match.spaces.keys import source_space
from ..match.spaces.titles import Titles
from ..models.registry import tokenizer_from_folder
from ..models.saved_tokenizer import tokenizer_of_files
from ..store import STATE, read_sealed, write_state
from .cropped import AnyEncoder, CropEncoder, cropped_of_files, files_of_cropped
from .encode import Encoder
from .fields import FIELDS_FILE, pack_fields, unpack_fields
from .kept import KeptFiles, encoder_files
from .known import KnownListings
from .runtime import WEIGHTS_FILE, OnnxEncoder, is_read_by
from .several import SeveralEncoders, files_in_folders, several_of_files

FORMAT = 1  # raised with every change that older code can't read
SEVERAL_FORMAT = 2  # of a folder with several encoders, which alone needs it: others are written as before
MANIFEST = 'manifest.json'
TOLERANCE = 1e-3  # between unit embeddings of the same model on the same device
# packages whose versions the manifest notes
PACKAGES = ('fastmatch', 'torch', 'timm', 'transformers', 'scikit-learn', 'safetensors')


@dataclass
class Parts:
    "What a matcher is made of, and what its folder holds."
    rule: Rule
    catalogue: KnownListings
    encoder: AnyEncoder | None
    columns: Columns  # Of tables of listings
    info: dict  # Anything json takes


def write_matcher_files(
    path,  # Folder; one that a matcher was saved to before is replaced
    files: dict,  # File name -> bytes, as `pack` gives them
):
    "Write a matcher's folder; a kill leaves the old matcher or the new one."
    made_with = {package: package_version(package) for package in PACKAGES}
    has_several = any(name.startswith('encoders/') for name in files)
    written_format = SEVERAL_FORMAT if has_several else FORMAT
    write_state(path, MANIFEST, {'format': written_format, 'made_with': made_with}, files)


def read_matcher_files(
    path,  # Folder that a matcher was saved to
    runtime: str | None = None,  # Only the files that one of `RUNTIMES` needs are handed back; None: all
) -> tuple[dict, dict]:  # The manifest's content; file name -> bytes
    "The files of a saved matcher, every hash checked; raises `InputError` naming what is missing or damaged."
    return read_sealed(path, MANIFEST, (FORMAT, SEVERAL_FORMAT),
                       None if runtime is None else partial(is_read_by, runtime))


def keep_others(
    encoder: Encoder,  # Of the matcher
    path,  # Folder that the matcher was loaded from
    manifest: dict,  # What its manifest says
    files: dict,  # Those that were read
):
    "Let an encoder know which files of its own were left in the folder, for the next time it is saved."
    encoder.kept = KeptFiles.of_folder(path, manifest, set(files))


def is_matcher_file(
    filename: str,  # Of a file or folder
) -> bool:
    "Whether it is one of the names that a saved matcher has in its folder, the manifest among them."
    return filename == MANIFEST or bool(STATE.fullmatch(filename))


def pack(
    parts: Parts,  # Of a matcher
) -> dict:
    "A matcher as files: name -> bytes."
    from safetensors.numpy import save as save_arrays
    catalogue, columns = parts.catalogue, parts.columns
    encoder = parts.encoder
    spec = {'rule': parts.rule.to_dict(),
            # names of columns as the first version of the format has them
            'cols': {'id_col': columns.id, 'fn_col': columns.image, 'text_col': columns.title,
                     'phash_col': columns.phash,
                     **({} if columns.source is None else {'source_col': columns.source})},
            'info': parts.info, 'encoder': None if encoder is None else encoder.spec()}
    # older versions of the kit read a matcher without fields
    if columns.fields:
        spec['fields'] = {name: field.to_dict() for name, field in columns.fields.items()}
    other_files = {}
    arrays = {'trained_on': catalogue.trained_on}
    keys_by_modality, similarities = {}, {}
    for modality, space in catalogue.spaces.items():
        if space.is_column: continue
        if isinstance(space, (Dense, PictureSets)): arrays[f'vectors/{modality}'] = space.vectors
        elif isinstance(space, Keys): keys_by_modality[modality] = space.keys.tolist()
        if isinstance(space, PictureSets):
            arrays[f'pictures/{modality}'], similarities[modality] = space.listings, space.similarity
    if 'tfidf' in catalogue.spaces:
        vocabulary, counts = catalogue.spaces['tfidf'].state()
        other_files['tfidf.json'] = _json(vocabulary)
        arrays |= {f'tfidf/{array_name}': array for array_name, array in counts.items()}
    of_fields, field_arrays = pack_fields(catalogue.spaces)
    if of_fields: other_files[FIELDS_FILE] = _json(of_fields)
    arrays |= field_arrays
    other_files |= _files_of(encoder)
    arrays = {array_name: np.ascontiguousarray(array) for array_name, array in arrays.items()}
    listings = {'ids': catalogue.ids.tolist(), 'titles': catalogue.titles, 'keys': keys_by_modality}
    # listings of one picture each are written as by earlier versions
    if similarities: listings['pictures'] = similarities
    return {'matcher.json': _json(spec), 'listings.json': _json(listings),
            'vectors.safetensors': save_arrays(arrays), **other_files}


def _files_of(encoder):
    if encoder is None: return {}
    if isinstance(encoder, SeveralEncoders): return files_in_folders(encoder.encoders, encoder_files)
    if isinstance(encoder, CropEncoder): return files_of_cropped(encoder, encoder_files)
    return encoder_files(encoder)


def check_readable(
    encoder: AnyEncoder | None,  # Of the matcher
    files: dict,  # As `pack` gives them
):
    """Raise `InputError` unless the encoder that `files` hold embeds as this one does.

    A model that was changed after it was made can have weights that the architecture in the spec has not, or
    the same weights and another way to use them. One that ONNX runs was read from its files, and stays so.
    """
    if encoder is None or isinstance(encoder, OnnxEncoder): return
    advice = ('the encoder was changed after it was made and can not be built again; give one of your own to '
              'register_encoder')
    try: again = _unpack_encoder(json.loads(files['matcher.json'])['encoder'], files, encoder.device)
    except (InputError, MissingPackage): raise
    # torch and timm have their own errors for weights of another architecture
    except Exception as error:
        raise InputError(f'not saved: {advice} ({type(error).__name__}: {str(error)[:300]})') from error
    expected = encoder.embed_probe()
    for modality, vectors in again.embed_probe().items():
        largest = float(np.abs(vectors - expected[modality]).max())
        if not largest < TOLERANCE:
            raise InputError(f'not saved: {advice} (read back, its {modality} embeddings differ by up to '
                             f'{largest:.2g})')


def unpack(
    files: dict,  # As `pack` gives them
    device: str,  # Where the encoder runs
    functions: dict | None = None,  # 'module:name' -> function, for steps of the user's own in the rule
    runtime: str = 'torch',  # One of `RUNTIMES`, for the encoder
) -> Parts:
    "The matcher that `pack` made files of; raises `InputError` where its parts don't fit together."
    from safetensors.numpy import load as load_arrays
    spec, listings = json.loads(files['matcher.json']), json.loads(files['listings.json'])
    arrays = load_arrays(files['vectors.safetensors'])
    rule = Rule.from_dict(spec['rule'], functions)
    columns = replace(Columns.resolve(spec['cols'], {}, Columns(group=None)), fields=spec.get('fields', {}))
    spaces = unpack_fields(json.loads(files[FIELDS_FILE]), arrays) if FIELDS_FILE in files else {}
    spaces = {modality: spaces[modality] if modality in spaces
              else _unpack_space(modality, listings, arrays, files) for modality in rule.reads}
    # an earlier version kept ids as they came
    ids = texts_of(listings['ids']).astype(str)
    catalogue = KnownListings(ids, listings['titles'], arrays['trained_on'], spaces)
    encoder = None if spec['encoder'] is None else _unpack_encoder(spec['encoder'], files, device, runtime)
    _check_widths(catalogue, encoder)
    if encoder is not None: catalogue.made_with = encoder.made_with
    return Parts(rule, catalogue, encoder, columns, spec['info'])


def _unpack_space(modality, listings, arrays, files):
    if modality == 'units': return Units(listings['titles'])
    if modality == 'titles': return Titles(listings['titles'])
    if modality == 'tfidf':
        array_names = [array_name for array_name in arrays if array_name.startswith('tfidf/')]
        counts = {array_name.removeprefix('tfidf/'): arrays[array_name] for array_name in array_names}
        return Tfidf.from_state(json.loads(files['tfidf.json']), counts)
    if modality == SOURCE: return source_space(listings['keys'][modality])
    if modality in listings['keys']: return Keys(listings['keys'][modality])
    vectors = arrays[f'vectors/{modality}']
    similarity = listings.get('pictures', {}).get(modality)
    if similarity is None: return Dense(vectors, modality, normalized=True)
    return PictureSets(vectors, arrays[f'pictures/{modality}'], modality, similarity, normalized=True)


def _unpack_encoder(spec, files, device, runtime='torch'):
    if 'several' in spec or 'cropped' in spec:
        if runtime != 'torch':
            raise InputError(f"runtime={runtime!r}: this matcher holds several encoders, which torch runs")
        encoder_of = partial(_unpack_encoder, device=device)
        if 'several' in spec: return several_of_files(spec, files, encoder_of)
        return cropped_of_files(spec, files, encoder_of, device)
    from safetensors.torch import load as load_tensors
    tokenizer = None
    if 'title' in spec:
        tokenizer = tokenizer_of_files(files, partial(tokenizer_from_folder, spec['title']))
    if runtime != 'torch': return OnnxEncoder.from_files(spec, files, tokenizer, runtime)
    return Encoder.from_spec(spec, load_tensors(files[WEIGHTS_FILE]), tokenizer, device)


def _check_widths(catalogue, encoder):
    "Raise `InputError` where spaces are of other listings, or of another encoder's embeddings."
    for modality, space in catalogue.spaces.items():
        holds_vectors = isinstance(space, (Dense, PictureSets))
        if encoder is not None and holds_vectors and space.dim != encoder.widths.get(modality):
            raise InputError(f'{modality}: the catalogue holds vectors of {space.dim} numbers, '
                             f'the encoder makes {encoder.widths.get(modality)}')
    by_listing = {**catalogue.spaces, 'trained_on': catalogue.trained_on}
    wrong = {name: len(rows) for name, rows in by_listing.items() if len(rows) != len(catalogue)}
    if wrong: raise InputError(f'{wrong} rows for {len(catalogue)} listings')


@contextmanager
def told_with_folder(
    path,  # Folder that a matcher is being loaded from
):
    """Put the folder's name before an `InputError`.

    Any other error, which a library raises for whole files that hold nonsense, becomes an `InputError`.
    """
    try: yield
    except InputError as error: raise InputError(f'{path}: {error}') from error
    except MissingPackage: raise
    except Exception as error:
        raise InputError(f'{path}: its files are whole, but their content does not fit together '
                         f'({type(error).__name__}: {error})') from error


def _json(content): return json.dumps(content, ensure_ascii=False).encode()
