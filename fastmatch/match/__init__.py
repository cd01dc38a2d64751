"The match floor: arrays in, matches out; no fastai, no torch."
from .approx import Index
from .decide import Matches, at_most, chisel, decide, min2, shares, veto
from .embeddings import Embeddings
from .features import FEATURES, pair_features, with_scores
from .flat import Flat
from .fuse import FUSIONS, Candidates, candidates, ensemble, fuse
from .group import agglomerate, group, same_group, tiers
from .heldout import HeldOut, Paired, alone_heldout, choose_rule, fusion_grid, heldout, heldout_fused, paired, summary_table
from .index import Dense
from .keys import Keys
from .neighbors import Neighbors
from .pair import PairModel, heldout_pairs
from .pool import Pool
from .refine import augment, blend, cross_mean, expand
from .rerank import k_reciprocal, mutual, neighbor_mean, standardize
from .rule import Decision, Rule
from .score import alone, map_at_r, recall_at, row_f1
from .steps import STEPS, Step
from .sweep import RankSweep, Sweep, best_by_rank, best_threshold
from .text import Tfidf
from .union import UnionSweep, best_union
from .units import Units, quantities

__all__ = ['Candidates', 'Decision', 'Dense', 'Embeddings', 'FEATURES', 'FUSIONS', 'Flat', 'HeldOut', 'Index', 'Keys', 'Matches', 'Neighbors',
           'PairModel', 'Paired', 'Pool', 'RankSweep', 'Rule', 'STEPS', 'Step', 'Sweep', 'Tfidf', 'UnionSweep', 'Units', 'agglomerate',
           'alone', 'alone_heldout', 'at_most', 'augment', 'best_by_rank', 'best_threshold', 'best_union', 'blend', 'candidates', 'chisel',
           'choose_rule', 'cross_mean', 'decide', 'ensemble', 'expand', 'fuse', 'fusion_grid', 'group', 'heldout', 'heldout_fused',
           'heldout_pairs', 'k_reciprocal', 'map_at_r', 'min2', 'mutual', 'neighbor_mean', 'pair_features', 'paired', 'quantities',
           'recall_at', 'row_f1', 'same_group', 'shares', 'standardize', 'summary_table', 'tiers', 'veto', 'with_scores']
