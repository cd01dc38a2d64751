"From embeddings and titles to matches: search, fuse, refine, decide, judge. Arrays only, no fastai or torch."
from .candidates import Candidates, candidates
from .decide import decide
from .embeddings import Embeddings
from .fuse import FUSIONS, ensemble, fuse
from .judge.choose import fusion_grid, heldout_fused
from .judge.groups import Groups
from .judge.heldout import HeldOut, alone_heldout, heldout
from .judge.paired import Paired, paired, summary_table
from .judge.pool_thresholds import pool_thresholds, threshold_curves
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
from .steps.group import agglomerate, group, same_group, tiers
from .steps.min2 import min2
from .steps.scores import k_reciprocal, mutual, neighbor_mean, standardize, veto
from .steps.step import STEPS, Step
from .steps.vectors import augment, blend, cross_mean, expand
from .thresholds.flat import Flat
from .thresholds.sweep import RankSweep, Sweep, best_by_rank, best_threshold
from .thresholds.union import UnionSweep, best_union
from .words import rule_in_words

__all__ = ['Candidates', 'Decision', 'Dense', 'Embeddings', 'FEATURES', 'FUSIONS', 'Flat', 'Groups',
           'HeldOut', 'Index', 'Keys', 'Matches', 'Neighbors', 'PairModel', 'Paired', 'PictureSets',
           'Pictures', 'Pool', 'PoolThresholds', 'RankSweep', 'Rule', 'RulePairs', 'SIMILARITIES', 'STEPS',
           'Setting', 'Step', 'Sweep', 'Tfidf',
           'Titles', 'UnionSweep', 'Units', 'agglomerate', 'alone', 'alone_heldout', 'among_themselves',
           'at_most', 'augment', 'best_by_rank', 'best_threshold', 'best_union', 'blend', 'candidates',
           'chisel', 'choose_rule', 'cross_mean', 'decide', 'ensemble', 'expand', 'fuse', 'fusion_grid',
           'group', 'heldout', 'heldout_fused', 'heldout_pairs', 'in_the_catalogue', 'k_reciprocal',
           'ladder', 'map_at_r', 'min2', 'mutual', 'neighbor_mean', 'pair_features', 'pair_model', 'paired',
           'pool_thresholds', 'quantities', 'recall_at', 'row_f1', 'rule_in_words', 'same_group', 'shares',
           'standardize', 'summary_table', 'threshold_curves', 'tiers', 'veto', 'with_scores']
