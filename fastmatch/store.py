"""Files and folders that are written whole or not at all, and sealed folders, checked before they are read.

A sealed folder holds a manifest (a json file) that lists the sha256 of the other files and carries a hash
over itself. Saved matchers, indexes and pair models are such folders. An earlier one is replaced in one of
two ways: `write_sealed` writes a new folder and swaps both; `write_state` writes the files into a subfolder
of their own and then replaces the manifest, which names the subfolder that counts, so that other files beside
it may stay. `read_sealed` reads both.
"""
import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np

from .core import InputError, preview

STATE = re.compile(r'v-[0-9a-f]{12}')  # name of a subfolder that `write_state` writes
REPLACEABLE = ('.safetensors', '.faiss', '.onnx', '.txt')  # endings of files in an earlier sealed folder
READ_ATTEMPTS = 5  # how often a folder is read again because somebody saved to it meanwhile


def fingerprint(
    vectors: np.ndarray,  # float32 (n,d)
) -> str:
    "A sha256 over type, shape and bytes of an array: equal only for arrays that are equal to the last bit."
    digest = hashlib.sha256(f'{vectors.dtype.str} {vectors.shape}'.encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()


# --- files and folders that are there whole or not at all

def write_atomically(
    path: Path,  # File to write
    data: str | bytes,  # Its content; text is written as UTF-8
):
    "Write a file so that a process killed meanwhile leaves the old file or the new one, never half of it."
    path = Path(path)
    temporary_file = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        _write_to_disk(temporary_file, data.encode() if isinstance(data, str) else data)
        os.replace(temporary_file, path)
    finally: temporary_file.unlink(missing_ok=True)


def write_text(
    path: Path,  # File to write
    text: str,
):
    "Write text as UTF-8 with the line ends that it has: on Windows `Path.write_text` doubles some."
    Path(path).write_bytes(text.encode())


def table_text(
    table,  # DataFrame
) -> str:
    "A table as CSV without its index, the same text on every system."
    return table.to_csv(index=False, lineterminator='\n')


def _write_to_disk(target_file, content):
    "Write bytes, and return when they are on the disk and no longer only in memory."
    with open(target_file, 'wb') as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def check_new_folder(
    path: Path,  # Folder that a long job is going to write
    ours=lambda entry_name: False,  # Function of a file's name: whether such a job writes a file of this name
    force: bool = False,  # Whether a folder with an earlier result, and nothing else in it, may be replaced
):
    "Raise `InputError` where `atomic_folder` couldn't write `path`, to be called before hours of work."
    path = Path(path).resolve()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        culprit = '' if existing == path else f'{existing} '
        raise InputError(f'out={path}: {culprit}is a file, not a folder')
    # the new folder is made beside the old one and renamed, which a mount point can't be
    if os.path.ismount(path): raise InputError(f'out={path}: is a mount point, give a folder inside it')
    parent = path.parent if existing == path else existing
    if not os.access(parent, os.W_OK): raise InputError(f'out={path}: no right to write in {parent}')
    entry_names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    other_names = [entry_name for entry_name in entry_names if not ours(entry_name)]
    if other_names:
        raise InputError(f'out={path}: is there already and holds something else ({preview(other_names)}): '
                         'give a new folder')
    if entry_names and not force:
        raise InputError(f'out={path}: holds an earlier result: give a new folder, or --force to replace it')


@contextmanager
def atomic_folder(
    path: Path,  # Folder to write; one that is there is replaced
):
    """A new folder to write into, which becomes `path` at the end of the `with` block.

    When the block raises, the new folder is deleted and `path` stays as it was.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    new_folder = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    old_folder = new_folder.with_name(f'{new_folder.name}.old')
    try:
        yield new_folder
        new_folder.chmod(0o755)
        if path.exists():
            path.rename(old_folder)
            try: new_folder.rename(path)
            except BaseException:
                old_folder.rename(path)
                raise
            shutil.rmtree(old_folder, ignore_errors=True)
        else: new_folder.rename(path)
    finally: shutil.rmtree(new_folder, ignore_errors=True)


# --- sealed folders

def canonical_json(
    content,  # Anything that json takes
) -> bytes:
    "Content as json, always in the same bytes: sorted keys, one blank of indentation, UTF-8."
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True).encode()


def seal(
    content: dict,  # Anything that json takes, without the key 'sha256'
) -> bytes:
    "A manifest's bytes: the content and, under 'sha256', the hash of its canonical json."
    return canonical_json({**content, 'sha256': _sha256(canonical_json(content))})


def _sha256(content): return hashlib.sha256(content).hexdigest()


def write_sealed(
    path,  # Folder; an earlier one is replaced, one with anything else in it raises `InputError`
    name: str,  # File name of the manifest, e.g. 'index.json'
    content: dict,  # What the manifest says, with its 'format'; the files' hashes are added
    files: dict,  # File name -> bytes; or -> a function of a path that writes there, such files aren't hashed
):
    "Write a sealed folder whose files lie beside its manifest, whole or not at all."
    def ours(other): return other == name or other in files or Path(other).suffix in REPLACEABLE
    check_new_folder(path, ours, force=True)
    with atomic_folder(path) as folder:
        for file_name, write_to in files.items():
            if callable(write_to): write_to(folder/file_name)
        hashed = {file_name: data for file_name, data in files.items() if not callable(data)}
        digests = _write_files(folder, hashed)
        _write_to_disk(folder/name, seal({**content, 'files': digests}))


def write_state(
    path,  # Folder; made if it isn't there; other files in it stay if an earlier state was written there
    name: str,  # File name of the manifest, e.g. 'manifest.json'
    content: dict,  # What the manifest says, with its 'format'; subfolder and hashes are added
    files: dict,  # File name -> bytes; a name may have a folder before a '/'
):
    """Write a sealed folder whose files lie in a subfolder, and delete the earlier ones.

    Replacing the manifest is the switch: a reader, also after a kill, finds the old state or the new one.
    Raises `InputError` where `path` is a file or a folder with other things in it, and where somebody else
    saved to the same folder meanwhile; what they saved stays.
    """
    path = Path(path)
    # what a kill may have left: a state without its manifest, or half a manifest
    leftover = re.compile(rf'{STATE.pattern}|\.{re.escape(name)}\.\d+')
    _check_place(path, name, leftover)
    path.mkdir(parents=True, exist_ok=True)
    state_folder = path/f'v-{uuid4().hex[:12]}'
    try:
        digests = _write_files(state_folder, files)
        # whoever else saves to the same folder deletes every state but their own
        if not all((state_folder/filename).is_file() for filename in files):
            raise InputError(f'{path}: another matcher was saved there meanwhile, and stays')
        write_atomically(path/name, seal({**content, 'folder': state_folder.name, 'files': digests}))
    except BaseException:
        shutil.rmtree(state_folder, ignore_errors=True)
        raise
    for entry in path.iterdir():
        if not leftover.fullmatch(entry.name) or entry == state_folder: continue
        if entry.is_dir(): shutil.rmtree(entry, ignore_errors=True)
        else: entry.unlink(missing_ok=True)


def _check_place(path, manifest_name, leftover):
    if path.exists() and not path.is_dir(): raise InputError(f'{path}: is a file, not a folder')
    if not path.is_dir() or (path/manifest_name).is_file(): return
    other_names = [entry.name for entry in path.iterdir() if not leftover.fullmatch(entry.name)]
    if other_names:
        raise InputError(f'{path}: is a folder with something else in it ({other_names[0]}): give a new one, '
                         'or one that a matcher was saved to')


def _write_files(folder, files):
    "Write `files` (filename -> bytes) into `folder`; returns filename -> sha256."
    for filename, content in files.items():
        target_file = folder/filename
        target_file.parent.mkdir(parents=True, exist_ok=True)
        _write_to_disk(target_file, content)
    return {filename: _sha256(content) for filename, content in files.items()}


def read_sealed(
    path,  # Folder that `write_sealed` or `write_state` wrote
    name: str,  # File name of the manifest
    version: int | tuple,  # The 'format' that can be read, or several of them
    wanted=None,  # Function of a file's name: whether its bytes are handed back; None: those of all
) -> tuple[dict, dict]:  # The manifest's content; file name -> bytes of the hashed files
    """Read a sealed folder; every hash is checked before anything is handed back.

    Raises `InputError` with the file that is missing, damaged, of another format or, in a subfolder, not part
    of what was saved.
    """
    path = Path(path)
    for _ in range(READ_ATTEMPTS):
        content = read_manifest(path, name, version)
        try: return content, _read_files(path, name, content, wanted)
        except (InputError, FileNotFoundError):
            # a save that ended meanwhile has deleted the old files: then there is a new manifest to go by
            if read_manifest(path, name, version) == content: raise
    raise InputError(f'{path}: is saved to faster than it can be read')


def read_manifest(
    path,  # Folder that `write_sealed` or `write_state` wrote
    name: str,  # File name of the manifest
    version: int | tuple,  # The 'format' that can be read, or several of them
) -> dict:
    "What a manifest says; raises `InputError` where it is missing, damaged or of another format."
    manifest = Path(path)/name
    if not manifest.parent.is_dir():
        raise InputError(f'{path}: missing: no such folder to look for {name} in')
    if not manifest.is_file():
        raise InputError(f'{manifest}: missing: nothing was saved here, or saving was cut off')
    manifest_bytes = manifest.read_bytes()
    try: content = json.loads(manifest_bytes)
    except ValueError as error: raise InputError(f'{manifest}: damaged, not json ({error})') from error
    readable = version if isinstance(version, tuple) else (version,)
    if isinstance(content, dict) and content.get('format', readable[0]) not in readable:
        made_with = f": made with {content['made_with']}" if 'made_with' in content else ''
        raise InputError(f"{manifest}: saved in format {content['format']}, this version of fastmatch reads "
                         f'{" and ".join(map(str, readable))}{made_with}')
    plain_content = dict(content) if isinstance(content, dict) else {}
    plain_content.pop('sha256', None)
    # all bytes are compared, so that an added blank is noticed as well
    if manifest_bytes != seal(plain_content): raise _changed(manifest)
    return plain_content


def _changed(file): return InputError(f'{file}: damaged or changed since it was saved (its hash differs)')


def _read_files(path, name, content, wanted=None):
    "The files that a manifest's content lists: name -> bytes."
    folder, digests = path, content.get('files')
    if not isinstance(digests, dict): raise InputError(f'{path/name}: files={digests!r} is no list of files')
    if 'folder' in content:
        state_name = content['folder']
        if not isinstance(state_name, str) or not STATE.fullmatch(state_name):
            raise InputError(f'{path/name}: folder={state_name!r} is no name of a saved state')
        folder = path/state_name
        # a library that is given the folder would read such a file too
        found_files = {file.relative_to(folder).as_posix() for file in folder.rglob('*') if not file.is_dir()}
        extra_files = found_files - set(digests)
        if extra_files: raise InputError(f'{folder/min(extra_files)}: was not saved here: remove it')
    files = {}
    for file_name, digest in digests.items():
        if not (folder/file_name).is_file(): raise InputError(f'{folder/file_name}: missing')
        if wanted is not None and not wanted(file_name):
            with open(folder/file_name, 'rb') as stream: found = hashlib.file_digest(stream, 'sha256')
            if found.hexdigest() != digest: raise _changed(folder/file_name)
            continue
        files[file_name] = (folder/file_name).read_bytes()
        if _sha256(files[file_name]) != digest: raise _changed(folder/file_name)
    return files
