"Small folders that are checked before anything in them is read: a sealed json, and files under the hashes it names."
import hashlib
import json
from pathlib import Path

import numpy as np

from .core import InputError, atomic_folder, check_new_folder


def fingerprint(
    vectors: np.ndarray,  # float32 (n,d)
) -> str:
    "What tells these very vectors from any others."
    h = hashlib.sha256(f'{vectors.dtype.str} {vectors.shape}'.encode())
    h.update(np.ascontiguousarray(vectors))
    return h.hexdigest()


def _dump(o): return json.dumps(o, indent=1, ensure_ascii=False, sort_keys=True).encode()
def _hash(data): return hashlib.sha256(data).hexdigest()


def write_sealed(
    path,  # Folder; one that was written here before is replaced
    name: str,  # Of the json, e.g. 'index.json'
    content: dict,  # Anything json takes
    files: dict,  # Name -> bytes, hashed; or -> a function of a file name that writes it and whose content is checked elsewhere
):
    "Write a folder that is there whole or not at all."
    check_new_folder(path, lambda o: o == name or o in files or Path(o).suffix in ('.safetensors', '.faiss', '.onnx', '.txt'), force=True)
    with atomic_folder(path) as tmp:
        hashes = {}
        for k, o in files.items():
            if callable(o): o(tmp/k)
            else:
                (tmp/k).write_bytes(o)
                hashes[k] = _hash(o)
        content = {**content, 'files': hashes}
        (tmp/name).write_bytes(_dump({**content, 'sha256': _hash(_dump(content))}))


def read_sealed(
    path,  # Folder that `write_sealed` wrote
    name: str,  # Of the json
    version: int,  # Its 'format', the only one that is read
) -> tuple[dict, dict]:  # The content; name -> bytes of the hashed files
    "The json and the files of a folder after their hashes were checked; raises `InputError` naming what is missing, damaged or of another format."
    file = Path(path)/name
    if not file.is_file(): raise InputError(f'{file}: missing: nothing was saved here, or something else')
    raw = file.read_bytes()
    try: content = json.loads(raw)
    except ValueError as e: raise InputError(f'{file}: damaged, not json ({e})') from e
    if isinstance(content, dict) and content.get('format', version) != version: raise InputError(f"{file}: saved in format {content['format']}, this version of fastmatch reads {version}")
    plain = {k: v for k, v in content.items() if k != 'sha256'} if isinstance(content, dict) else {}
    # the very bytes, so that a flipped blank counts as well
    if raw != _dump({**plain, 'sha256': _hash(_dump(plain))}): raise InputError(f'{file}: damaged or changed since it was saved (its hash differs)')
    files = {}
    for k, digest in plain['files'].items():
        if not (Path(path)/k).is_file(): raise InputError(f'{Path(path)/k}: missing')
        files[k] = (Path(path)/k).read_bytes()
        if _hash(files[k]) != digest: raise InputError(f'{Path(path)/k}: damaged or changed since it was saved (its hash differs)')
    return plain, files
