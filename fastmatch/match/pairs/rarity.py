"What two titles have in common, a rare word counting for more than one that is in every title."
from functools import cached_property

import numpy as np
from scipy import sparse

BLOCK_PAIRS = 1 << 17  # pairs whose words are looked at together


class WordTable:
    """Which words each title holds, and what each word is worth: its inverse document frequency, the
    logarithm of the number of titles over the number of those that hold it, or 1.

    Nothing is said by a word that all titles hold.
    """
    def __init__(
        self,
        words: list,  # (n,) lists of words; a word counts once in a title
        weighted: bool = True,  # By inverse document frequency; False: each word is worth 1
    ):
        word_codes = {}
        word_sets = [sorted({word_codes.setdefault(word, len(word_codes)) for word in title_words})
                     for title_words in words]
        self.sizes = np.array([len(title_words) for title_words in word_sets], np.int64)  # words of a title
        word_columns = np.fromiter((word for title_words in word_sets for word in title_words), np.int64)
        title_starts = np.concatenate([[0], self.sizes.cumsum()])
        shape = len(words), max(1, len(word_codes))
        self.held = sparse.csr_matrix((np.ones(len(word_columns), np.float32), word_columns, title_starts),
                                      shape)
        self.weighted = weighted

    @cached_property
    def worth(self) -> sparse.csr_matrix:  # float32 (n,words)
        "What each word of a title is worth."
        if not self.weighted: return self.held
        titles_with_word = np.bincount(self.held.indices, minlength=self.held.shape[1])
        weights = np.log(len(self.sizes) / np.maximum(titles_with_word, 1)).astype(np.float32)
        return sparse.csr_matrix((weights[self.held.indices], self.held.indices, self.held.indptr),
                                 self.held.shape)

    @cached_property
    def totals(self) -> np.ndarray:  # float32 (n,)
        "What all words of a title are worth together."
        return np.asarray(self.worth.sum(1), np.float32).ravel()

    def overlap(
        self,
        rows,  # int (m,), the first title of each pair
        ids,  # int (m,), the second
    ) -> np.ndarray:  # float32 (m,)
        "Words in common over words in both together; -1 where one has none, so that nothing can be said."
        in_common = self._of_pairs(self.held, rows, ids, lambda words, held: words.multiply(held).sum(1))
        sizes, other_sizes = self.sizes[rows], self.sizes[ids]
        in_both = np.maximum(sizes + other_sizes - in_common, 1)
        return np.where((sizes > 0) & (other_sizes > 0), in_common / in_both, -1).astype(np.float32)

    def common(
        self,
        rows,  # int (m,), the first title of each pair
        ids,  # int (m,), the second
    ) -> np.ndarray:  # float32 (m,)
        "What the words that both titles hold are worth."
        return self._of_pairs(self.worth, rows, ids, lambda worth, held: worth.multiply(held).sum(1))

    def rarest_common(
        self,
        rows,  # int (m,), the first title of each pair
        ids,  # int (m,), the second
    ) -> np.ndarray:  # float32 (m,), 0 where there is none
        "What the rarest word that both titles hold is worth."
        return self._of_pairs(self.worth, rows, ids, lambda worth, held: _row_maxima(worth.multiply(held)))

    def rarest_lacking(
        self,
        rows,  # int (m,), the first title of each pair
        ids,  # int (m,), the second
    ) -> np.ndarray:  # float32 (m,), 0 where none is lacking
        "What the rarest word of the first title that the second lacks is worth."
        def lacking(worth, held): return _row_maxima(worth - worth.multiply(held))
        return self._of_pairs(self.worth, rows, ids, lacking)

    def shares(
        self,
        name: str,  # Before the name of each feature
        rows,  # int (m,), the first title of each pair
        ids,  # int (m,), the second
    ) -> dict:  # Name -> float32 (m,)
        """The worth of what both hold, its share in all of the first title ('share') and of the second
        ('share back'), and what is left over of each ('left', 'left back').

        A share is -1 where a title's words are worth nothing, so that nothing can be said.
        """
        common, features = self.common(rows, ids), {}
        for suffix, titles in (('', rows), (' back', ids)):
            totals = self.totals[titles]
            shares = common / np.maximum(totals, np.float32(1e-9))
            features[f'{name} share{suffix}'] = np.where(totals > 0, shares, np.float32(-1))
            features[f'{name} left{suffix}'] = np.maximum(totals - common, 0)
        return features | {f'{name} common': common}

    def _of_pairs(self, table, rows, ids, compare):
        "`compare(rows of the table for the first titles, words of the second ones)`, some pairs at a time."
        values = np.empty(len(rows), np.float32)
        for block_start in range(0, len(rows), BLOCK_PAIRS):
            block = slice(block_start, block_start + BLOCK_PAIRS)
            values[block] = np.asarray(compare(table[rows[block]], self.held[ids[block]])).ravel()
        return values


def _row_maxima(table): return table.max(1).toarray()
