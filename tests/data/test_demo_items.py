"Items of the sample: frames, texts, categories by Unicode's charts."
import pandas as pd

from fastmatch.data.demo import demo_items, demo_path


def test_items_are_the_groups_of_the_sample():
    items, listings = demo_items(1.), pd.read_csv(demo_path()/'listings.csv')
    assert sorted(items.item_id) == sorted(listings.label_group.unique())
    by_item = listings.groupby('label_group')
    for item in items.itertuples():
        of_group = by_item.get_group(item.item_id)
        assert item.images.split() == of_group.image.tolist() and item.fold == of_group.fold.iloc[0]
        texts = [text for text in (item.title, item.heard, item.written) if isinstance(text, str)]
        assert texts == list(dict.fromkeys(of_group.title))[:len(texts)]
    told = dict(zip(items.item_id, items.category))
    assert told['1f435'] == 'animals' and told['1f412'] == 'animals' and told['1f354'] == 'food'
    assert items.category.value_counts().min() >= 19 and items.category.nunique() == 8


def test_some_categories_are_told():
    half, again, other = demo_items(), demo_items(), demo_items(seed=1)
    pd.testing.assert_frame_equal(half, again)
    assert .4 < half.category.notna().sum() / demo_items(1.).category.notna().sum() < .6
    assert not half.category.equals(other.category)
    assert demo_items(0.).category.notna().sum() == 0
