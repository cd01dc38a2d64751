"""What `worth_all.py` measures: every trick that trains, as the one change that it makes to the default; and
what is left out of the table, with the reason."""
# ruff: noqa: F403, F405
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastai.callback.schedule import SchedLin
from fastai.callback.training import GradientClip
from torch.optim.lr_scheduler import StepLR

from fastmatch.callback.adversarial import FGM, PGD
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.heads import MarginSchedule
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import ASAM, ESAM, SAM, LookSAM
from fastmatch.callback.sizes import MultiScale
from fastmatch.data.augment import list_augs
from fastmatch.layers.heads import CenterHead, CosineHead, SampledHead, TrackedHead
from fastmatch.layers.pooling import ProjectNeck
from fastmatch.losses import *
from fastmatch.optim import opt_func
from fastmatch.schedule import GradientAccumulation, Still, TorchSchedule
from tests.bench.grid import SCALE

STORED, PICTURES = 'features that stand still', 'encoder trained'
DEFAULT, ADAMW = 'default', 'adamw at the best rate'
HALF_WAY = .5


def flat_cos(learn, epochs, lr, **kwargs):
    "The default schedule."
    learn.fit_flat_cos(epochs, lr, **kwargs)


@dataclass(frozen=True)
class Trick:
    "One change to the default; what isn't said is as the default has it."
    kind: str  # The part of the page
    name: str
    parts: tuple = ()  # The public names that it measures
    setting: str = STORED
    over: str = DEFAULT  # The name of the trick that it is compared with
    rate: float = 1.  # Factor on the rate, or on the one that the search for a rate starts from
    tuned: bool = False  # Whether its rate is searched for, on other products
    fit: Callable = flat_cos  # (learner, epochs, rate, cbs=) -> None
    sampler: str | None = None  # 'pk' for losses over pairs: groups x 2 listings a batch
    learner: Callable = lambda dls: {}  # Loaders -> options of `match_learner`, made anew for each run
    cbs: Callable = list  # Makes the callbacks, anew for each run
    steps: int | None = None  # Of the training; None: as many as all others
    augs: str = 'colour'  # Preset of augmentations, where the encoder is trained

    @property
    def id(self): return f'{self.setting}: {self.name}'


def loss(name, make, *parts, kind='Losses', **options):
    "A trick that is another loss; `make` may read the loaders."
    def learner(dls): return {'loss_func': make(dls)}
    return Trick(kind, name, parts, learner=learner, **options)


def pairs(name, make, *parts): return loss(name, lambda dls: make(), *parts, sampler='pk')


def head(name, make_loss, head_func, *parts, kind='Losses'):
    return Trick(kind, name, parts, learner=lambda dls: {'loss_func': make_loss(), 'head_func': head_func})


def neck(name, *parts, **options): return Trick('Necks and heads', name, parts, learner=lambda dls: options)


def callback(name, make, *parts, kind='Callbacks', **options):
    return Trick(kind, name, parts, cbs=lambda: [make()], **options)


def schedule(name, fit, *parts, **options): return Trick('Schedules', name, parts, fit=fit, **options)


def one_margin(): return ArcFace(.3, SCALE)


def curves():
    "The default after trainings of several lengths: where it stops rising."
    for steps in (0, 100, 200, 800):
        yield Trick('Length of the training', f'{steps} steps', steps=steps)
    for steps in (100, 400):
        yield Trick('Length of the training', f'{steps} steps of pictures', setting=PICTURES, steps=steps)


def losses():
    yield loss('softmax (NormFace)', lambda dls: NormSoftmax(SCALE), 'NormSoftmax')
    yield loss('ArcFace m=.5', lambda dls: ArcFace(.5, SCALE), 'ArcFace')
    yield loss('CosFace', lambda dls: CosFace(.2, SCALE), 'CosFace')
    yield loss('SphereFace', lambda dls: SphereFace(1.35, SCALE), 'SphereFace')
    yield loss('L-Softmax', lambda dls: LargeMarginSoftmax(1.35), 'LargeMarginSoftmax')
    yield loss('combined margin', lambda dls: CombinedMargin(1., .2, .1, SCALE), 'CombinedMargin')
    yield head('AdaCos', AdaCos, TrackedHead, 'AdaCos', 'TrackedHead')
    yield head('CurricularFace', lambda: CurricularFace(.3, SCALE), TrackedHead, 'CurricularFace')
    yield loss('class-size margin', lambda dls: ArcFace(class_margins(class_counts(dls), .4, .2), SCALE),
               'class_margins', 'class_counts')
    yield loss('hardest 70% of the rows', lambda dls: HardRows(one_margin()), 'HardRows')
    yield pairs('triplet', lambda: Triplet(.2), 'Triplet')
    yield pairs('SupCon', lambda: SupCon(.1), 'SupCon')
    yield pairs('NT-Xent', lambda: NTXent(.1), 'NTXent')
    yield pairs('multi-similarity', lambda: MultiSimilarity(base=.3), 'MultiSimilarity')
    yield pairs('contrastive', lambda: Contrastive(1.3), 'Contrastive')
    yield pairs('ArcFace + triplet', lambda: SumLoss({'softmax': one_margin(), 'triplet': Triplet(.2)}),
                'SumLoss')
    yield head('ArcFace + center', lambda: SumLoss({'softmax': one_margin(), 'center': CenterLoss()},
                                                   {'center': 1e-3}), CenterHead, 'CenterLoss', 'CenterHead')


def layers():
    yield neck('no neck', neck=False)
    yield neck('neck of 128', 'ProjectNeck', 'BNNeck', neck=partial(ProjectNeck, n_out=128))
    yield neck('dropout .2 before the neck', 'ProjectNeck', neck=partial(ProjectNeck, n_out=256, p=.2))
    yield neck('sub-centers k=3', 'CosineHead', head_func=partial(CosineHead, k=3))
    yield neck('a fifth of the centers', 'SampledHead', head_func=SampledHead)
    for name, part in {'pk': 'PKSampler', 'weighted': 'WeightedSampler', 'oversample': 'OverSampler'}.items():
        yield Trick('Batches', f'sampler={name!r}, default loss', (part,), sampler=name)


# name -> (factor on adamw's rate to start the search from, options)
OPTIMIZERS = {
    'ranger': (3., {}), 'ranger_nogc': (3., {}), 'rangeradabelief': (3., {}),
    'rangeradabelief_nogc': (3., {}), 'radam': (3., {}), 'adabelief': (1., {}), 'rmsprop': (1., {}),
    'sgd': (250., {}), 'sgd_momentum': (25., {}), 'sgd_nesterov': (25., {}), 'lookahead_adamw': (1., {}),
    'lion': (.1, {}), 'lamb': (3., {}), 'adan': (3., {}), 'nadamw': (1., {})}


def optimizers():
    yield Trick('Optimizers', ADAMW, ('adamw',), tuned=True)
    for name, (rate, options) in OPTIMIZERS.items():
        yield Trick('Optimizers', name, (name,), over=ADAMW, rate=rate, tuned=True,
                    learner=lambda dls, name=name, options=options: {'opt_func': opt_func(name, **options)})
    yield Trick('Optimizers', 'ranger eps=.01', ('ranger',), over=ADAMW, rate=3., tuned=True,
                learner=lambda dls: {'opt_func': opt_func('ranger', eps=.01)})
    for decay in (0., .1):
        yield Trick('Optimizers', f'weight decay {decay:g}', learner=lambda dls, decay=decay: {'wd': decay})
    for factor in (1 / 3, 3.): yield Trick('Optimizers', f'rate x {factor:.2g}', rate=factor)
    yield Trick('Optimizers', 'Ranger in one cycle', ('fit_one_cycle',), over=ADAMW, rate=3., tuned=True,
                fit=lambda learn, epochs, lr, cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs),
                learner=lambda dls: {'opt_func': opt_func('ranger')})


def method(name, *shape, **options):
    "A method of the learner that trains for all epochs."
    return lambda learn, epochs, lr, cbs: getattr(learn, name)(epochs, *shape, lr, cbs=cbs, **options)


def in_cycles(learn, epochs, lr, cbs): learn.fit_cycles(3, epochs / 3, lr, cbs=cbs)


def in_sgdr(learn, epochs, lr, cbs): learn.fit_sgdr(2, max(1, epochs // 3), lr, cbs=cbs)


def head_first(learn, epochs, lr, cbs):
    learn.fit_head_first(epochs // 4, epochs - epochs // 4, lr, cbs=cbs)


def gradually(learn, epochs, lr, cbs):
    learn.fit_gradual(lr, [epochs // 4, epochs - epochs // 4], cbs=cbs)


def schedules():
    yield schedule('one rate to the end', method('fit'), 'fit')
    yield schedule('one cycle', method('fit_one_cycle'), 'fit_one_cycle')
    yield schedule('cosine', method('fit_cos'), 'fit_cos')
    yield schedule('three cosines', in_cycles, 'fit_cycles')
    yield schedule('two cosines, the second twice as long', in_sgdr, 'fit_sgdr')
    yield schedule('exponential', method('fit_exp'), 'fit_exp')
    yield schedule('steps', method('fit_steps'), 'fit_steps')
    yield schedule('warm-up of two epochs', method('fit_flat_cos', warmup=2.), 'WarmUp', 'fit_flat_cos')
    yield schedule('head first', head_first, 'fit_head_first')
    yield schedule('layer by layer', gradually, 'fit_gradual')
    yield callback('torch\'s StepLR', lambda: TorchSchedule(partial(StepLR, step_size=5, gamma=.5)),
                   'TorchSchedule', kind='Schedules', fit=method('fit'))
    yield callback('gradients of 256 listings', lambda: GradientAccumulation(256), 'GradientAccumulation',
                   kind='Schedules')
    yield callback('encoder stands still', lambda: Still('encoders'), 'Still', kind='Schedules')


FLAT_MINIMA = {'SAM': (SAM, 'SAM'), 'ASAM': (partial(ASAM, scale_all=True), 'ASAM'),
               'LookSAM': (LookSAM, 'LookSAM'), 'ESAM': (ESAM, 'ESAM'), 'SAF (experimental)': (SAF, 'SAF')}
AVERAGES = {'EMA': (EMA, 'EMA'), 'SWA, last half': (partial(SWA, HALF_WAY), 'SWA')}


def callbacks():
    for name, (make, part) in {**FLAT_MINIMA, **AVERAGES}.items(): yield callback(name, make, part)
    yield callback('SAM, rho .2', partial(SAM, .2), 'SAM')
    yield callback('FGM', partial(FGM, names='project'), 'FGM')
    yield callback('PGD', partial(PGD, names='project'), 'PGD')
    yield callback('hard half', partial(HardMining, HALF_WAY), 'HardMining')
    yield callback('margin ramp', lambda: MarginSchedule(SchedLin(.1, .5)), 'MarginSchedule')
    yield callback('gradients clipped at 1', lambda: GradientClip(1.), 'GradientClip')


def of_pictures(kind, name, *parts, cbs=list, **learner):
    return Trick(kind, name, parts, PICTURES, cbs=cbs, learner=lambda dls: dict(learner))


def pictures():
    "What makes sense only where an encoder of pictures is trained."
    for preset in list_augs():
        if preset == 'colour': continue  # the default's
        yield Trick('Augmentations', f'preset {preset}', ('augs', preset), PICTURES, augs=preset)
    yield of_pictures('Augmentations', 'MixUp', 'MixUp', cbs=lambda: [MixUp()])
    yield of_pictures('Augmentations', 'CutMix', 'CutMix', cbs=lambda: [CutMix()])
    yield of_pictures('Augmentations', 'several sizes', 'MultiScale', cbs=lambda: [MultiScale([48, 64, 80])])
    yield of_pictures('Inside the encoder', 'GeM pooling', 'GeM', image_pool='gem')
    yield of_pictures('Inside the encoder', 'rates that fall with the depth, x .75', 'layer_decay',
                      layer_decay=.75)
    for name, (make, part) in {**FLAT_MINIMA, **AVERAGES}.items():
        yield Trick('Callbacks', f'{name}, on pictures', (part,), PICTURES, cbs=lambda make=make: [make()])
    for name, make in {'FGM': FGM, 'PGD': PGD}.items():
        yield Trick('Callbacks', f'{name}, on pictures', (name,), PICTURES,
                    cbs=lambda make=make: [make(names='blocks.3.0.')])


def tricks() -> dict:
    "Id -> `Trick`: the defaults first, and nothing twice."
    made = [Trick('Default', DEFAULT), Trick('Default', DEFAULT, setting=PICTURES)]
    for part in (losses, layers, optimizers, schedules, callbacks, pictures, curves): made += part()
    by_id = {trick.id: trick for trick in made}
    if len(by_id) < len(made): raise ValueError('two tricks have one name')
    return by_id


# public names of parts that have no row of their own: name -> why not
CLASSES = 'for classes of items and not for groups: measured there, tests/bench/labels.py and streams.py'
MASKS = 'for masks: measured there, tests/bench/parts.py'
TOOL = 'changes nothing that is trained: it watches, keeps or helps'
TEACHERS = 'learns from outputs of other models: tests/bench/few_labels_runs.py'
INNER = 'a base or a piece of those that have a row'
CHOOSES = 'looks at held-out scores while it trains: what it chose would have to be judged on other products'
INSIDE = 'inside an encoder: tests/bench/parts.py'
LEFT_OUT = {
    'AsymmetricLoss': CLASSES, 'CrossEntropy': CLASSES, 'FocalLoss': CLASSES, 'MultiLabelFocalLoss': CLASSES,
    'SoftFBeta': CLASSES, 'class_weights': CLASSES, 'LikeliestTargets': CLASSES,
    'DiceBCE': MASKS, 'Lovasz': MASKS, 'MaskAndPresence': MASKS, 'SoftDice': MASKS,
    'Distill': TEACHERS, 'SoftTarget': TEACHERS, 'Teacher': TEACHERS, 'StoredTeacher': TEACHERS,
    'TeacherEmbeddings': TEACHERS, 'MeanTeacher': TEACHERS,
    'Loss': INNER, 'Averaged': INNER, 'CrossEntropyValid': INNER, 'ExtraTerm': INNER, 'MixImages': INNER,
    'SecondPass': INNER, 'SkippableCallback': INNER, 'ScheduledFits': INNER, 'Wrapped': INNER,
    'ParamScheduler': INNER, 'fit_curve': INNER, 'curves': INNER, 'between': INNER,
    'auto_scale': 'what a loss takes without a scale of its own',
    'AdaBelief': 'has its row by its name: adabelief', 'RAdam': 'has its row by its name: radam',
    'Lookahead': 'has its row by its name: lookahead_adamw',
    'ranger_adabelief': 'has its row by its name: rangeradabelief',
    'list_opts': TOOL, 'opt_func': TOOL, 'optimizer_configs': TOOL, 'largest_bs': TOOL, 'noise_scale': TOOL,
    'named_rates': TOOL, 'rate_factors': TOOL, 'patch_schedules': TOOL, 'list_augs': TOOL,
    'layered_rates': 'rates by group are the default (lr_mult); by layer: rates that fall with the depth',
    'Plateau': CHOOSES, 'fit_plateau': CHOOSES, 'Snapshots': CHOOSES,
    'AverageViews': TOOL, 'CastToTensor': TOOL, 'CheckedTrackers': TOOL, 'GroupRates': TOOL, 'Guard': TOOL,
    'HeadLabels': TOOL, 'LossTerms': TOOL, 'LRFinder': TOOL, 'MatchRecorder': TOOL, 'PlainValidLoss': TOOL,
    'Recorder': TOOL, 'Resume': TOOL, 'TrainedOn': TOOL, 'ValidScores': TOOL,
    'CPUMixedPrecision': 'for processors with bfloat16: speed alone',
    'SharedTrainer': 'for several processes: speed alone',
    'ShortEpochCallback': 'a shorter training: see Length of the training',
    'SkipToEpoch': 'goes on with a training that was interrupted',
    'Colour': 'in the preset colour, which is the default', 'colour': 'the default',
    'Erase': 'in the presets strong and randaugment', 'RandAugment': 'in the preset randaugment',
    'DropFields': 'for columns as one text: tests/bench/cross_encoder.py',
    'DropSpan': 'for columns as one text: tests/bench/cross_encoder.py',
    'TextChanges': 'for columns as one text: tests/bench/cross_encoder.py',
    'SCSE': INSIDE, 'ChannelsLast': INNER, 'BAM': INSIDE, 'IBN': INSIDE}
