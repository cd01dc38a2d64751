"Folders that are written whole and checked before anything in them is read: json and safetensors under a manifest of hashes, no pickle."
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from uuid import uuid4

from ..core import InputError, package_version, write_atomically

FORMAT = 1  # raised with every change that older code can't read
MANIFEST = 'manifest.json'
MADE_WITH = ('fastmatch', 'torch', 'timm', 'transformers', 'scikit-learn', 'safetensors')
CONTENT = re.compile(r'v-[0-9a-f]{12}')  # the folder inside that holds one saved state
OURS = re.compile(rf'{CONTENT.pattern}|\.{re.escape(MANIFEST)}\.\d+')  # and what a kill may leave: a state without its manifest, a manifest half written


def _dump(o): return json.dumps(o, indent=1, ensure_ascii=False, sort_keys=True).encode()
def _hash(data): return hashlib.sha256(data).hexdigest()


def _sealed(content):
    "The manifest's bytes: its content with a hash over itself."
    return _dump({**content, 'sha256': _hash(_dump(content))})


def is_saved(path: Path) -> bool:
    "Whether `path` looks like a folder that `write_folder` wrote."
    return (Path(path)/MANIFEST).is_file()


def check_place(
    path: Path,  # Where a folder is to be written
) -> Path:
    "Raise `InputError` where something else than a saved folder stands at `path`."
    path = Path(path)
    if path.exists() and not path.is_dir(): raise InputError(f'{path}: is a file, not a folder')
    if path.is_dir() and not is_saved(path) and (other := [o.name for o in path.iterdir() if not OURS.fullmatch(o.name)]):
        raise InputError(f'{path}: is a folder with something else in it ({other[0]}): give a new one, or one that a matcher was saved to')
    return path


def write_folder(
    path: Path,  # Folder; made if it isn't there, replaced if one was saved there before
    files: dict,  # Name -> bytes; names may hold one '/'
):
    "Write `files` so that a reader, also after a kill, finds the old state or the new one, never a mix."
    path = check_place(path)
    path.mkdir(parents=True, exist_ok=True)
    inside = f'v-{uuid4().hex[:12]}'
    try:
        for name, data in files.items():
            file = path/inside/name
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, 'wb') as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        # somebody else who saves to the same folder cleans up what isn't his
        if not all((path/inside/o).is_file() for o in files): raise InputError(f'{path}: another matcher was saved there meanwhile, and stays')
        # the manifest says which state counts: replacing that one file is the switch
        write_atomically(path/MANIFEST, _sealed({'format': FORMAT, 'made_with': {o: package_version(o) for o in MADE_WITH}, 'folder': inside,
                                            'files': {k: _hash(v) for k, v in files.items()}}))
    except BaseException:
        shutil.rmtree(path/inside, ignore_errors=True)
        raise
    # earlier states, and what a kill left of one that was never finished
    for o in path.iterdir():
        if not OURS.fullmatch(o.name) or o.name == inside: continue
        if o.is_dir(): shutil.rmtree(o, ignore_errors=True)
        else: o.unlink(missing_ok=True)


def read_manifest(
    path: Path,  # Folder
) -> dict:
    "The manifest of a saved folder; raises `InputError` where it is missing, damaged, or of another format."
    file = Path(path)/MANIFEST
    if not Path(path).is_dir(): raise InputError(f'{path}: no such folder')
    if not file.is_file(): raise InputError(f'{file}: missing: no matcher was saved here, or saving was cut off')
    raw = file.read_bytes()
    try: content = json.loads(raw)
    except ValueError as e: raise InputError(f'{file}: damaged, not json ({e})') from e
    if isinstance(content, dict) and content.get('format', FORMAT) != FORMAT:
        raise InputError(f"{file}: saved in format {content['format']}, this version of fastmatch reads {FORMAT}: made with {content.get('made_with')}")
    # the very bytes, so that a flipped blank counts as well
    if not isinstance(content, dict) or raw != _sealed({k: v for k, v in content.items() if k != 'sha256'}):
        raise InputError(f'{file}: damaged or changed since it was saved (its hash differs)')
    return content


def read_folder(
    path: Path,  # Folder that `write_folder` wrote
) -> tuple[dict, Path, dict]:  # (name -> bytes, the folder inside that holds them, the manifest)
    "Read every file after its hash was checked; raises `InputError` naming the file that is missing, damaged, or was not saved here."
    for _ in range(5):
        content = read_manifest(path)
        try: return *_checked(Path(path), content), content
        except (InputError, FileNotFoundError):
            # a save that ended meanwhile took the old state away: then there is a new one to read
            if read_manifest(path) == content: raise
    raise InputError(f'{path}: is saved to faster than it can be read')


def _checked(path, content):
    if not isinstance(content.get('folder'), str) or not CONTENT.fullmatch(content['folder']): raise InputError(f"{path/MANIFEST}: folder={content.get('folder')!r} is no name of a saved state")
    if not isinstance(content.get('files'), dict): raise InputError(f'{path/MANIFEST}: files={content.get("files")!r} is no list of files')
    inside = path/content['folder']
    have = {o.relative_to(inside).as_posix() for o in inside.rglob('*') if not o.is_dir()} if inside.is_dir() else set()
    # a library that is handed the folder would read it along
    if extra := have - set(content['files']): raise InputError(f'{inside/sorted(extra)[0]}: was not saved here: remove it')
    files = {}
    for name, digest in content['files'].items():
        if name not in have: raise InputError(f'{inside/name}: missing')
        files[name] = (inside/name).read_bytes()
        if _hash(files[name]) != digest: raise InputError(f'{inside/name}: damaged or changed since it was saved (its hash differs)')
    return files, inside
