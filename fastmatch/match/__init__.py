"""From embeddings and titles to matches: search, fuse, refine, decide, judge. No fastai or torch: arrays.

Functions of one word are called through the module, `match.group(...)`, or imported by name. `import *`, of
this module as of `fastmatch.all`, brings only names that a notebook would hardly give to something of its
own: classes, and functions of two words and more.
"""
from .candidates import Candidates, candidates
from .decide import decide
from .embeddings import Embeddings
from .fields.blocks import Blocks
from .fields.categories import Categories
from .fields.codes import Codes
from .fields.field import Field
from .fields.numbers import Numbers
from .fields.texts import Texts
from .fuse import FUSIONS, ensemble, fuse
from .judge.agreement import Agreement, validation_agreement
from .judge.choose import fusion_grid, heldout_fused
from .judge.compare import Comparison, compare
from .judge.groups import Groups
from .judge.heldout import HeldOut, alone_heldout, heldout
from .judge.paired import Paired, paired, summary_table
from .judge.pool_thresholds import pool_thresholds, threshold_curves
from .judge.repeat import Repeated, repeat
from .judge.score import alone, map_at_r, recall_at, row_f1
from .judge.setting import Setting, among_themselves, in_the_catalogue
from .matches import Matches, at_most
from .neighbors import Neighbors
from .pairs.features import FEATURES, pair_features, with_scores
from .pairs.model import PairModel, heldout_pairs
from .pairs.rule_pairs import RulePairs, pair_model
from .pools import PoolThresholds
from .rule import Decision, Rule
from .search.choose import choose_rule
from .search.ladder import ladder
from .spaces.approx import Index
from .spaces.dense import Dense
from .spaces.keys import Keys
from .spaces.picture_sets import SIMILARITIES, Pictures, PictureSets
from .spaces.pool import Pool
from .spaces.tfidf import Tfidf
from .spaces.titles import Titles
from .spaces.units import Units, quantities
from .steps.chisel import chisel, shares
from .steps.cross import cross_encoder
from .steps.group import agglomerate, group, same_group, tiers
from .steps.min2 import min2
from .steps.scores import k_reciprocal, mutual, neighbor_mean, standardize, veto
from .steps.step import STEPS, Step
from .steps.vectors import augment, blend, cross_mean, expand
from .thresholds.flat import Flat
from .thresholds.sweep import RankSweep, Sweep, best_by_rank, best_threshold
from .thresholds.union import UnionSweep, best_union
from .words import rule_in_words

__all__ = ['Agreement', 'Candidates', 'Comparison', 'Decision', 'Dense', 'Embeddings', 'FEATURES', 'FUSIONS',
           'Field', 'Flat', 'Groups', 'HeldOut', 'Index', 'Keys', 'Matches', 'Neighbors', 'PairModel',
           'Paired', 'PictureSets', 'Pictures', 'Pool', 'PoolThresholds', 'RankSweep', 'Repeated', 'Rule',
           'RulePairs', 'SIMILARITIES', 'STEPS', 'Setting', 'Step', 'Sweep', 'Tfidf', 'Titles', 'UnionSweep',
           'Units', 'alone_heldout', 'among_themselves', 'at_most', 'best_by_rank', 'best_threshold',
           'best_union', 'choose_rule', 'cross_mean', 'fusion_grid', 'heldout_fused', 'heldout_pairs',
           'in_the_catalogue', 'k_reciprocal', 'map_at_r', 'neighbor_mean', 'pair_features', 'pair_model',
           'pool_thresholds', 'recall_at', 'row_f1', 'rule_in_words', 'same_group', 'summary_table',
           'threshold_curves', 'validation_agreement', 'with_scores']
