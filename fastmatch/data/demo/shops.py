"Two made-up shops that sell some of the same products under other names, for trying out how tables match."
import numpy as np
import pandas as pd

# how the left shop writes a brand, and how the right one does
BRANDS = {'Hewlett-Packard': 'HP', 'Sony': 'SONY', 'Canon': 'Canon Inc.', 'Logitech': 'Logitech',
          'Western Digital': 'WD', 'Samsung': 'Samsung Electronics', 'Epson': 'EPSON', 'Netgear': 'NetGear'}
# kind of product -> words of the left shop, words of the right one
KINDS = {'laser printer': 'printer, laser', 'wireless mouse': 'cordless mouse',
         'photo camera': 'digital camera', 'hard drive': 'external HDD', 'speaker system': 'speakers',
         'projector lamp': 'lamp for projectors',
         'ethernet switch': 'network switch', 'ink cartridge': 'ink'}
COLOURS = {'black': 'blk', 'silver': 'silver', 'white': 'wht', 'blue': 'blue'}
PACKED = {1: '', 2: '2-pack', 4: '4-pack'}


def demo_shops(
    n_left: int = 400,  # Listings of the left shop
    n_right: int = 500,  # Listings of the right shop
    n_same: int = 250,  # Products that both sell
    seed: int = 0,  # Of all that is drawn
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:  # (left, right, the pairs that match)
    """Two tables with brands, model numbers, prices and their gaps, and the true pairs `left_id, right_id`.

    Products come in families: other colours, packs and sizes of one model are other products, as in life.
    """
    rng = np.random.default_rng(seed)
    products = []
    while len(products) < n_left + n_right - n_same: products += _family(rng)
    products = [products[place] for place in rng.permutation(len(products))[:n_left + n_right - n_same]]
    left = [products[place] for place in rng.permutation(n_left)]
    of_right = np.concatenate([np.arange(n_same), np.arange(n_left, len(products))])
    right_places = rng.permutation(of_right)
    left_rows = [_left_row(rng, number, product) for number, product in enumerate(left)]
    right_rows = [_right_row(rng, number, products[place]) for number, place in enumerate(right_places)]
    left_ids = {id(product): row['id'] for product, row in zip(left, left_rows)}
    pairs = [(left_ids[id(products[place])], row['sku']) for place, row in zip(right_places, right_rows)
             if place < n_same]
    return (pd.DataFrame(left_rows), pd.DataFrame(right_rows),
            pd.DataFrame(sorted(pairs), columns=['left_id', 'right_id']))


def _family(rng):
    "Up to four products of one model: its colours and packs."
    letters = ''.join(rng.choice(list('ABCDEFGHKLMPRSTVX'), rng.integers(1, 4)))
    family = {'brand': rng.choice(list(BRANDS)), 'kind': rng.choice(list(KINDS)),
              'model': f'{letters}{rng.integers(20, 9999)}', 'price': float(rng.integers(12, 900))}
    variants = [(colour, pack) for colour in COLOURS for pack in PACKED]
    return [{**family, 'colour': variants[place][0], 'pack': variants[place][1],
             'price': family['price'] * variants[place][1] ** .9,
             'model': family['model'] + variants[place][0][0].upper() * (rng.random() < .7)}
            for place in rng.permutation(len(variants))[:rng.integers(1, 5)]]


def _left_row(rng, number, product):
    pack = f" {PACKED[product['pack']]}" if product['pack'] > 1 else ''
    in_title = f" - {product['model']}" if rng.random() < .6 else ''
    return {'id': f'L{number:04d}',
            'title': f"{product['brand']} {product['kind']} {product['colour']}{pack}{in_title}",
            'brand': product['brand'] if rng.random() < .9 else None,
            'model': product['model'] if rng.random() < .7 else None,
            'price': f"${product['price']:,.2f}" if rng.random() < .85 else None}


def _right_row(rng, number, product):
    code = product['model']
    spelled = f'{code[:2]}-{code[2:]}' if rng.random() < .4 else code.lower()
    words = [KINDS[product['kind']], COLOURS[product['colour']], PACKED[product['pack']]]
    words = [word for word in words if word and rng.random() < .9]
    in_title = [spelled] if rng.random() < .5 else []
    brand = BRANDS[product['brand']]
    return {'sku': f'R{number:04d}', 'title': ' '.join([*in_title, brand, *rng.permutation(words)]),
            'brand': brand if rng.random() < .8 else None,
            'model': spelled if rng.random() < .6 else None,
            'price': round(product['price'] * rng.uniform(.93, 1.07), 2) if rng.random() < .9 else None}
