"Two small shops whose listings are known to be the same product or not."
import numpy as np
import pandas as pd

BRANDS = {'Sony': 'SONY', 'Hewlett-Packard': 'HP', 'Canon': 'canon', 'Logitech': 'Logitech Inc.'}
WORDS = 'camera printer mouse laptop speaker black silver wireless pro mini digital 4k usb portable'.split()


def two_shops(n_left=60, n_right=70, n_same=40, seed=0):
    "(left table, right table, pairs that match): the same products under other titles, brands and prices."
    rng = np.random.default_rng(seed)

    def product():
        words = rng.choice(WORDS, 3, replace=False)
        letters = ''.join(rng.choice(list('ABCDEFGH'), 3))
        return {'brand': rng.choice(list(BRANDS)), 'words': words, 'price': float(rng.integers(10, 900)),
                'model': f'{letters}-{rng.integers(100, 9999)}'}

    same = [product() for _ in range(n_same)]
    left = [*same, *(product() for _ in range(n_left - n_same))]
    right = [*same, *(product() for _ in range(n_right - n_same))]
    left_order, right_order = rng.permutation(n_left), rng.permutation(n_right)

    def left_row(each):
        return {'title': f"{each['brand']} {' '.join(each['words'])} {each['model']}", 'brand': each['brand'],
                'model': each['model'] if rng.random() < .7 else None,
                'price': f"${each['price']:.2f}" if rng.random() < .8 else None}

    def right_row(each):
        words = ' '.join(rng.permutation(each['words']))
        code = each['model'].replace('-', '').lower()
        in_name = f' {code}' if rng.random() < .5 else ''
        return {'name': f"{BRANDS[each['brand']]} {words}{in_name}", 'brand': BRANDS[each['brand']],
                'model': code if rng.random() < .7 else None,
                'price': each['price'] * (1 + .05 * rng.random())}

    left_table = pd.DataFrame([left_row(left[place]) for place in left_order])
    right_table = pd.DataFrame([right_row(right[place]) for place in right_order])
    left_table.insert(0, 'id', [f'L{number}' for number in range(n_left)])
    right_table.insert(0, 'sku', [f'R{number}' for number in range(n_right)])
    places = {place: number for number, place in enumerate(right_order)}
    pairs = pd.DataFrame([(f'L{number}', f'R{places[place]}') for number, place in enumerate(left_order)
                          if place < n_same], columns=['left_id', 'right_id'])
    return left_table, right_table, pairs


def labelled(left, right, pairs, seed=0, each=5):
    "The matches, and for each some pairs that do not match, with `label`."
    rng = np.random.default_rng(seed)
    true = set(pairs.itertuples(index=False, name=None))
    others = {(rng.choice(left.id), rng.choice(right.sku)) for _ in range(each * len(pairs))} - true
    rows = [(*pair, 1) for pair in sorted(true)] + [(*pair, 0) for pair in sorted(others)]
    return pd.DataFrame(rows, columns=['left_id', 'right_id', 'label'])


def pair_f1(found, pairs):
    "F1 of matches against all true pairs."
    predicted = set(found.matches[['left_id', 'right_id']].itertuples(index=False, name=None))
    true = set(pairs.itertuples(index=False, name=None))
    return 2 * len(predicted & true) / (len(predicted) + len(true))
