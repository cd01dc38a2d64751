"fastai's loggers beside a match_learner: CSV, TensorBoard and Weights & Biases (offline)."
import pandas as pd
import pytest
from fastai.callback.progress import CSVLogger

from fastmatch.core import InputError
from tests.learner.small import make
from tests.learner.test_classify import make as make_classifier
from tests.matcher.trained import some_listings

SCORES = ['recall@1', 'map@r', 'row_f1_max']


@pytest.fixture
def learner(tmp_path): return make(some_listings(4), path=tmp_path)


def train(learner, *cbs, epochs=2):
    with learner.no_bar(), learner.no_logging(): learner.fit(epochs, 1e-3, cbs=list(cbs))
    return pd.DataFrame(list(learner.recorder.values), columns=learner.recorder.metric_names[1:-1])


def test_csv(learner, tmp_path):
    recorded = train(learner, CSVLogger('scores.csv'))
    written = pd.read_csv(tmp_path/'scores.csv')
    assert written.epoch.tolist() == [0, 1] and written.columns.tolist()[2:-1] == SCORES
    pd.testing.assert_frame_equal(written[recorded.columns], recorded, check_dtype=False)


def test_tensorboard(learner, tmp_path):
    pytest.importorskip('tensorboard', reason='tensorboard is not installed')
    from fastai.callback.tensorboard import TensorBoardCallback
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    recorded = train(learner, TensorBoardCallback(tmp_path/'board', trace_model=False, log_preds=False))
    events = EventAccumulator(str(tmp_path/'board'))
    events.Reload()
    for name in SCORES:
        assert [event.value for event in events.Scalars(name)] == pytest.approx(recorded[name].tolist())
    assert len(events.Scalars('train_loss')) >= 2 * len(learner.dls.train)
    for options, message in ((dict(log_preds=False), 'trace_model=False'),
                             (dict(trace_model=False), 'log_preds=False.*show_matches')):
        with pytest.raises(InputError, match=f'TensorBoardCallback: give {message}'):
            train(learner, TensorBoardCallback(tmp_path/'no', **options))
    with pytest.raises(InputError, match='log_preds=False: learn.show_worst'):
        train(make_classifier(tmp_path), TensorBoardCallback(tmp_path/'no'))


def test_weights_and_biases(learner, tmp_path, monkeypatch):
    wandb = pytest.importorskip('wandb', reason='wandb is not installed')
    from fastai.callback.wandb import WandbCallback
    monkeypatch.setenv('WANDB_SILENT', 'true')
    with wandb.init(mode='offline', dir=tmp_path) as run:
        recorded = train(learner, WandbCallback(log_preds=False))
        last = recorded.iloc[-1][SCORES].to_dict()
        assert {name: run.summary[name] for name in SCORES} == pytest.approx(last)
        with pytest.raises(InputError, match='WandbCallback: give log_preds=False'):
            train(learner, WandbCallback())
