"Seven listings, a rule with steps, and what an explanation says of them."
import numpy as np

from fastmatch.match import Embeddings, Rule, Step

TITLES = ['susu 500ml', 'susu uht 0.5 l', 'susu 250 ml', 'kaos merah', 'kaos  Merah', 'lampu', 'lampu']
VECTORS = np.array([[1, 0, 0, .1], [1, .1, 0, 0], [1, 0, .1, 0], [0, 1, 0, 0], [0, .6, .8, 0], [0, 0, .1, 1],
                    [0, 0, 1, 1]], np.float32)
KNOWN = Embeddings({'image': VECTORS}, [f'p{number}' for number in range(7)], TITLES)
RULE = Rule('mean', {'image': 1.}, .9, steps=['veto', Step('min2', threshold=.5)], join=('same_title',))
BELOW = 'below the threshold'


def reasons(explanation):
    return {row['match']: (row['matches'], row['why']) for row in explanation.frame.to_dict('records')}
