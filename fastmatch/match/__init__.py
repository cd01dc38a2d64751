"The match floor: arrays in, matches out; no fastai, no torch."
from .embeddings import Embeddings
from .fuse import FUSIONS, Candidates, candidates, ensemble, fuse
from .group import group
from .heldout import HeldOut, Paired, alone_heldout, choose_rule, fusion_grid, heldout, heldout_fused, paired, summary_table
from .index import Dense
from .keys import Keys
from .neighbors import Neighbors
from .pool import Pool
from .refine import augment, blend, cross_mean, expand
from .rerank import k_reciprocal, mutual, neighbor_mean, standardize
from .rule import Matches, Rule, Sweep, best_threshold, decide
from .score import alone, map_at_r, recall_at, row_f1
from .text import Tfidf

__all__ = ['Candidates', 'Dense', 'Embeddings', 'FUSIONS', 'HeldOut', 'Keys', 'Matches', 'Neighbors', 'Paired', 'Pool', 'Rule', 'Sweep', 'Tfidf',
           'alone', 'alone_heldout', 'augment', 'best_threshold', 'blend', 'candidates', 'choose_rule', 'cross_mean', 'decide', 'ensemble', 'expand',
           'fuse', 'fusion_grid', 'group', 'heldout', 'heldout_fused', 'k_reciprocal', 'map_at_r', 'mutual', 'neighbor_mean', 'paired', 'recall_at',
           'row_f1', 'standardize', 'summary_table']
