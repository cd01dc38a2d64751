"""Everything for a notebook: fastai's vision namespace, then this package's, which wins where both have a
name.

Single words, which a notebook may well give to something of its own, stay behind their module:
`match.group(...)`, `match.decide(...)`, `schedule.between`. Those that few notebooks need are imported from
their room: `from fastmatch.data.table import unescape`, `from fastmatch.matcher import submission`.
"""
import pandas as pd
from fastai.callback.all import *
from fastai.vision.all import *

from . import match, schedule
from .callback.adversarial import FGM, PGD
from .callback.averaging import EMA, SWA
from .callback.guard import Guard, NonFinite
from .callback.heads import HeadLabels, LossTerms, MarginSchedule, PlainValidLoss
from .callback.learner_methods import fit_to_best
from .callback.mean_teacher import MeanTeacher
from .callback.mining import HardMining
from .callback.mix import CutMix, MixUp
from .callback.resume import Resume
from .callback.saf import SAF
from .callback.scoring import GroupRates
from .callback.sharpness import ASAM, ESAM, SAM, LookSAM
from .callback.sizes import MultiScale
from .callback.snapshots import Snapshots, average_weights, each_weights, greedy_soup
from .callback.state import update_bn
from .callback.stored_teacher import StoredTeacher, TeacherEmbeddings
from .callback.teacher import Teacher
from .catalogue import Catalogue
from .core import HeadOutput, InputError, MissingPackage, seed_everything
from .data.augment import Colour, DropFields, DropSpan, Erase, RandAugment, TextChanges, augs, list_augs
from .data.block import MatchDataLoaders
from .data.classify import ClassifyDataLoaders
from .data.columns import Columns
from .data.demo import demo_items, demo_path, demo_shops
from .data.image import read_image
from .data.kinds import recognise_fields
from .data.masks import MaskRule, best_mask_rule, image_dice, scores_by_class
from .data.picture_store import PictureStore
from .data.read import check_listings
from .data.sampler import OverSampler, PKSampler, RowSampler, SampledDL, WeightedSampler
from .data.segment import SegmentDataLoaders
from .data.shift import adversarial_validation
from .data.split import group_folds
from .data.stratify import stratified_folds
from .data.table import read_table
from .data.title import TitleBlock, Tokenize
from .jobs.export import export_matcher
from .jobs.options import RuleChoice
from .jobs.train import train_and_judge
from .jobs.tune import tune_listings
from .layers.heads import CenterHead, CosineHead, SampledHead, TrackedHead
from .layers.pooling import BNNeck, GeM, ProjectNeck
from .learner import (
    LR_MULT,
    ClassifyLearner,
    MatchLearner,
    PretrainLearner,
    classify_learner,
    groups_splitter,
    match_learner,
    pretrain_learner,
)
from .learner.matcher import picture_of
from .learner.segment import MaskDice, SegmentLearner, segment_learner
from .link import Rereading, TableMatches, match_tables
from .losses import *
from .match import *
from .matcher import (
    CropEncoder,
    Encoder,
    Matcher,
    MatchResult,
    Picture,
    SeveralEncoders,
    draw_parts,
    load_matcher,
    match_file,
    part_similarities,
)
from .matcher.segment import Segmenter, crop_to_product, load_segmenter, with_crop
from .metrics import MacroF1, MAPAtR, RecallAt, RowF1, macro_f1
from .models import (
    ClassifyNet,
    FrameFeatures,
    ImageEncoder,
    MatchNet,
    PartEncoder,
    Parts,
    TitleEncoder,
    Views,
    load_tokenizer,
    register_encoder,
    with_attention,
    with_ibn,
)
from .models.cross import CrossEncoder
from .models.segment import SegmentNet
from .optim import *
from .patches import patch_fastai
from .report import report_html, write_report
from .schedule import (
    GradientAccumulation,
    Plateau,
    Still,
    TorchSchedule,
    WarmUp,
    layered_rates,
    named_rates,
)
from .semi import *
from .study import (
    REFINEMENTS,
    PruneTrial,
    heldout_rules,
    heldout_trial,
    learner_maker,
    open_study,
    pools_figure,
    search_space,
    show_study,
    study_figures,
    tune_head,
    tune_learner,
    tune_rule,
)

patch_fastai()
