"The match floor: arrays in, matches out; no fastai, no torch."
from .approx import Index, Recall
from .embeddings import Embeddings
from .fuse import FUSIONS, Candidates, candidates, fuse
from .group import group
from .heldout import HeldOut, Paired, alone_heldout, choose_rule, fusion_grid, heldout, heldout_fused, paired, summary_table
from .index import Dense
from .keys import Keys
from .neighbors import Neighbors
from .pool import Pool
from .rule import Matches, Rule, Sweep, best_threshold, decide
from .score import alone, map_at_r, recall_at, row_f1
from .text import Tfidf

__all__ = ['FUSIONS', 'Candidates', 'Dense', 'Embeddings', 'HeldOut', 'Index', 'Keys', 'Matches', 'Neighbors', 'Paired', 'Pool', 'Recall', 'Rule', 'Sweep', 'Tfidf', 'alone',
           'alone_heldout', 'best_threshold', 'candidates', 'choose_rule', 'decide', 'fuse', 'fusion_grid', 'group', 'heldout', 'heldout_fused',
           'map_at_r', 'paired', 'recall_at', 'row_f1', 'summary_table']
