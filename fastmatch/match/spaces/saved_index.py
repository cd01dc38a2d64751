"""The folder that an `Index` is saved to: its settings as json, its vectors, and the index of faiss, under
their hashes."""
from pathlib import Path

import numpy as np

from ...core import InputError, require_package
from ...store import fingerprint, read_sealed, write_sealed
from .dense import Dense

FORMAT = 1  # raised with every change that older code can't read


def write_index(
    path,  # Folder; one that an index was saved to before is replaced
    settings: dict,  # What json takes, with 'name' and 'built', the kind of the index of faiss or None
    vectors: np.ndarray,  # float32 (n,d), unit length
    faiss_index=None,  # The index of faiss, where one was built
):
    "Write the folder whole or not at all."
    from safetensors.numpy import save_file
    faiss = require_package('faiss', 'saving an index', 'faiss-cpu')
    content = {**settings, 'format': FORMAT, 'shape': list(vectors.shape),
               'fingerprint': fingerprint(vectors)}
    files = {'vectors.safetensors': lambda vector_file: save_file({'vectors': vectors}, vector_file)}
    if faiss_index is not None: files['index.faiss'] = faiss.serialize_index(faiss_index).tobytes()
    write_sealed(path, 'index.json', content, files)


def read_index(
    path,  # Folder that `write_index` wrote
    vectors=None,  # The (n,d) vectors it was made from, of any length but 0; default the saved ones
) -> tuple:  # Settings, vectors at unit length, index of faiss or None
    "Read the folder; raises `InputError` for what is missing or damaged, or was made from other vectors."
    content, files = read_sealed(path, 'index.json', FORMAT)
    n_listings, dim = content['shape']
    if vectors is None: vectors = _saved_vectors(Path(path)/'vectors.safetensors', content['fingerprint'])
    else:
        shape = np.shape(vectors)
        if len(shape) != 2 or shape[1] != dim:
            raise InputError(f'{path}: an index of {dim} dimensions, the vectors are of shape {shape}')
        vectors = Dense(vectors, content['name']).vectors
        if fingerprint(vectors) != content['fingerprint']:
            raise InputError(f'{path}: the index was made from other vectors ({n_listings} x {dim})')
    return content, vectors, _faiss_index(path, files, n_listings, dim) if content['built'] else None


def _faiss_index(path, files, n, dim):
    faiss = require_package('faiss', 'loading an index', 'faiss-cpu')
    # faiss reads a damaged file without an error: it is handed these bytes because their hash was right
    index = faiss.deserialize_index(np.frombuffer(files['index.faiss'], np.uint8))
    if (index.ntotal, index.d) != (n, dim):
        raise InputError(f'{path}/index.faiss: holds {index.ntotal} x {index.d}, the vectors are {n} x {dim}')
    return index


def _saved_vectors(vector_file, expected_fingerprint):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    try: vectors = load_file(vector_file)['vectors']
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(f'{vector_file}: missing or damaged ({error})') from error
    if fingerprint(vectors) != expected_fingerprint:
        raise InputError(f'{vector_file}: damaged or changed since it was saved (its fingerprint differs)')
    return vectors
