"A fastai Learner that teaches frames and text to each other on items without labels, before they are used."
from fastai.learner import Learner
from fastcore.meta import delegates

from ..callback.scoring import CheckedTrackers
from ..core import IMAGE_ARCH, TEXT_ARCH, InputError, refuse_unknown_options
from ..losses.base import Loss
from ..models.fusion import StreamNet
from ..optim import adamw
from ..pretrain import PretrainNet, WeightedTerms, WithObjectives, make_objectives
from ..pretrain.callbacks import MomentumUpdate, ObjectiveTerms
from .base import (
    ENCODER_OPTIONS,
    ListingLearner,
    frame_width_of,
    group_callbacks,
    groups_splitter,
    make_encoders,
    make_fusion_of,
    take_options,
)

# Weight of each objective in the sum, as a team of the WeChat challenge of 2022 had them
OBJECTIVE_WEIGHTS = {'mlm': .8, 'mfm': .33, 'itm': 1., 'itc': 1.}
# Factors on one learning rate. What is new has to move further than what is pretrained already
PRETRAIN_LR_MULT = {'image': .05, 'title': .05, 'fusion': .25, 'head': .25}


class PretrainLearner(ListingLearner):
    """A `Learner` for items without labels; made by `pretrain_learner`.

    `pretrained_on` are the ids of the items that it trains on, `left_out` those of the items that it was told
    to leave out.
    """
    pretrained_on = left_out = ()

    def show_results(self, *args, **kwargs):
        "Not for objectives: the Recorder shows each one's loss."
        raise InputError('a pretrain_learner predicts nothing: each objective has its loss in the table')


@delegates(make_encoders, keep=True, but=['parts'])
def pretrain_learner(
    dls,  # `ClassifyDataLoaders` or `MatchDataLoaders` with frames and text; labels are not read
    image_arch=IMAGE_ARCH,  # As for `classify_learner`
    text_arch=TEXT_ARCH,  # As for `classify_learner`
    fusion='single',  # 'single' or 'double' stream, or a function that makes one, as for `classify_learner`
    # Objective -> weight: 'mlm' (words), 'mfm' (frames), 'itm' (matched or not), 'itc' (contrast); None:
    # `OBJECTIVE_WEIGHTS`
    objectives: dict | None = None,
    # Objective -> its options, e.g. {'itm': {'negatives': 'hard'}}; contrast has no momentum unless asked for
    options: dict | None = None,
    without_valid: bool = False,  # Leave out the validation items of `dls`, and validate on them
    cbs=None,  # More callbacks, e.g. `Resume('folder')`, which saves each epoch
    lr_mult: dict | None = None,  # Factor on one learning rate by group; default `PRETRAIN_LR_MULT`
    layer_decay: float | None = None,  # As for `classify_learner`
    splitter=None,  # As for `classify_learner`
    # `ENCODER_OPTIONS` for `make_encoders`; the rest for fastai's `Learner`, where
    # `opt_func` is `adamw` and `wd` .01 unless given
    **kwargs,
) -> PretrainLearner:
    """A Learner over all items of `dls`, labelled or not: what is in them teaches the model.

    Each objective has its loss in the table. What was learnt goes on with `encoder_state`:

        pre = pretrain_learner(dls, fusion='single')
        pre.fit_one_cycle(20, 1e-3)
        learn = classify_learner(dls, fusion='single')
        learn.load_encoder_state(pre.encoder_state())

    Items of validation are among those it trains on, without their labels, unless `without_valid`. Raises
    `InputError` for unknown objectives or options, and where they don't fit `dls` or encoders.
    """
    refuse_unknown_options(kwargs, pretrain_learner, Learner)
    items = unlabelled_loaders(dls, without_valid)
    encoder_options = take_options(kwargs, *ENCODER_OPTIONS)
    image, title, inputs, _ = make_encoders(items, image_arch, text_arch, **encoder_options)
    if fusion is None: raise InputError(f'fusion=None: give one of {("single", "double")}')
    net = StreamNet(make_fusion_of(items, fusion, image, title), image, title, frame_width_of(items))
    weights = OBJECTIVE_WEIGHTS if objectives is None else objectives
    made = make_objectives(weights, net, inputs.tokenizer, with_defaults(weights, options))
    model = PretrainNet(net, made)
    if lr_mult is None and splitter is None:
        lr_mult = {name: factor for name, factor in PRETRAIN_LR_MULT.items() if name in model.param_groups()}
    rates = group_callbacks(model, splitter, lr_mult, layer_decay)
    learn = PretrainLearner(items, model, WeightedTerms(made.weights), splitter=splitter or groups_splitter,
                            encoder_inputs=inputs, **{'opt_func': adamw, 'wd': .01, **kwargs})
    learn.add_cbs([ObjectiveTerms(), MomentumUpdate(), CheckedTrackers(), *rates])
    learn.add_cbs(cbs)
    id_column = items.columns.id
    learn.pretrained_on = items.train_df[id_column].to_numpy()
    learn.left_out = items.valid_df[id_column].to_numpy()
    learn.model.to(items.device)
    made.check(len(learn.pretrained_on))
    return learn


def with_defaults(
    weights: dict,  # Objective -> weight
    options: dict | None,  # Objective -> its options, as the user gave them
) -> dict:
    """The options of objectives. Contrast is within the batch unless asked for otherwise: copies that move
    slowly and a queue want more items than a table of a few thousand has."""
    if options is not None and not isinstance(options, dict): return options
    given = dict(options or {})
    contrast = given.get('itc', {})
    # a queue is filled by copies that move
    if 'itc' in weights and isinstance(contrast, dict) and 'queue' not in contrast:
        given['itc'] = {'momentum': None, **contrast}
    return given


def stream_options(
    # Join frames and text before one head: 'single' or 'double' stream, or a function (text encoder, width
    # of the frames' features) -> module, see `fastmatch.models.fusion`; None: a head each
    fusion=None,
    # Objectives of pretraining that go on beside the loss, with their weights: {'itc': .1}
    objectives: dict | None = None,
) -> tuple:  # (fusion, objectives)
    "The options of streams that learners take, in one place with their names: for `delegates`."
    return fusion, objectives


def keep_objectives(
    model,  # `ClassifyNet` or `MatchNet`, without objectives yet
    loss,  # Of the labels, one of `fastmatch.losses`
    objectives: dict | None,  # Objective -> weight; None: none
    tokenizer,  # Of the model's text encoder
    n_items: int,  # Items to train on
) -> tuple:  # (the loss of both, callbacks that they need)
    "Give a model objectives that go on beside the loss of the labels."
    if objectives is None: return loss, []
    if model.fusion is None:
        raise InputError("objectives are of frames and text together: give fusion='single' or 'double'")
    if not isinstance(loss, Loss):
        raise InputError(f'loss_func={loss!r}: objectives go on beside a loss of fastmatch.losses')
    made = make_objectives(objectives, model, tokenizer, with_defaults(objectives, None))
    made.check(n_items)
    model.objectives = made
    return WithObjectives(loss, made.weights), [MomentumUpdate()]


def unlabelled_loaders(
    dls,  # `ListingDataLoaders` with frames
    without_valid: bool,  # Leave out its validation items, and validate on them
):  # `ListingDataLoaders` over all items, whose target is always 0
    "Loaders over labelled and unlabelled items alike."
    if getattr(dls, 'frame_reading', None) is None or dls.columns.title is None:
        raise InputError('pretraining joins frames and text: make dls with image_col, title_col and frames=2 '
                         'or more, the most pictures of an item')
    if dls.options is None:
        raise InputError('dls of an exported Learner hold no items: make them with from_df')
    return dls.without_targets(without_valid)
