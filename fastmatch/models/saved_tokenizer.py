"A tokenizer as files in memory, for a sealed folder, and the files as a tokenizer again."
import tempfile
from pathlib import Path

from .text import load_saved_tokenizer

FOLDER = 'tokenizer'  # the files' names start with this


def tokenizer_files(
    tokenizer,  # A transformers tokenizer
) -> dict:  # 'tokenizer/...' -> bytes
    "The tokenizer's own files, as transformers writes them."
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {f'{FOLDER}/{file.relative_to(folder).as_posix()}': file.read_bytes()
                for file in Path(folder).rglob('*') if file.is_file()}


def tokenizer_of_files(
    files: dict,  # Name -> bytes, as `tokenizer_files` gives them; others among them are passed over
    load=load_saved_tokenizer,  # Function of a folder: what reads a tokenizer of this kind
):
    "The tokenizer in `files`, read from a copy of the very bytes that were checked."
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            if not name.startswith(f'{FOLDER}/'): continue
            file = Path(folder)/name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return load(f'{folder}/{FOLDER}')
