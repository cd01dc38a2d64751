"The match floor: arrays in, matches out; no fastai, no torch."
from .approx import Index
from .embeddings import Embeddings
from .features import FEATURES, pair_features, with_scores
from .fuse import FUSIONS, Candidates, candidates, fuse
from .group import group
from .heldout import HeldOut, Paired, alone_heldout, choose_rule, fusion_grid, heldout, heldout_fused, paired, summary_table
from .index import Dense
from .keys import Keys
from .neighbors import Neighbors
from .pair import PairModel, heldout_pairs
from .pool import Pool
from .rule import Matches, Rule, Sweep, best_threshold, decide
from .score import alone, map_at_r, recall_at, row_f1
from .text import Tfidf

__all__ = ['Candidates', 'Dense', 'Embeddings', 'FEATURES', 'FUSIONS', 'HeldOut', 'Index', 'Keys', 'Matches', 'Neighbors', 'PairModel', 'Paired',
           'Pool', 'Rule', 'Sweep', 'Tfidf', 'alone', 'alone_heldout', 'best_threshold', 'candidates', 'choose_rule', 'decide', 'fuse',
           'fusion_grid', 'group', 'heldout', 'heldout_fused', 'heldout_pairs', 'map_at_r', 'pair_features', 'paired', 'recall_at', 'row_f1',
           'summary_table', 'with_scores']
