"The matcher beside its own encoders."
from tests.bench.harness import Case, bench


@bench('main')
def match(quick):
    """New listings to matches (embed, search a catalogue and themselves, fuse, cut), against the bare
    encoders on the same decoded images and titles."""
    import numpy as np
    import pandas as pd
    import torch

    from fastmatch.data.demo import demo_path
    from fastmatch.data.image import read_image
    from fastmatch.match import Rule
    from fastmatch.matcher import Encoder, Matcher, Picture
    from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, load_tokenizer
    df = pd.read_csv(demo_path()/'listings.csv')
    df['image'] = [read_image(demo_path()/'images'/file) for file in df.image]
    torch.manual_seed(0)
    if quick:
        encoder = Encoder(
            MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False)), Picture((32, 32), 'squish')
        )
    else:
        tokenizer = load_tokenizer('all-MiniLM-L6-v2')
        encoder = Encoder(
            MatchNet(
                None,
                ImageEncoder('tf_efficientnet_lite0'),
                TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id),
            ),
            Picture((104, 104), 'squish', mean=[0.5] * 3, std=[0.5] * 3),
            tokenizer,
        )
    rule = Rule('mean', {'image': 1., 'tfidf': 1.} if quick else {'image': 1., 'title': 1., 'tfidf': 1.}, .6)
    new, known = (df[:40], df[40:80]) if quick else (df[:640], df[640:])
    matcher, _ = Matcher.from_df(known, '.', rule, encoder)

    # as one would write it: listings as they come, 64 at a time, each batch padded to its longest title
    @torch.inference_mode()
    def bare():
        embeddings = []
        size, resample = encoder.picture.size, encoder.picture.resample
        for start in range(0, len(new), 64):
            batch = new.iloc[start:start + 64]
            pixels = np.stack([np.asarray(picture.resize(size, resample)) for picture in batch.image])
            inputs = [(torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255) - .5) / .5]
            if not quick:
                tokens = tokenizer(
                    batch.title.tolist(), truncation=True, max_length=64, padding=True, return_tensors='pt'
                )
                inputs.append(tokens['input_ids'])
            embeddings.append(encoder.model(*inputs))
        return embeddings

    yield Case(
        'match',
        {'matcher.match': lambda: lambda: matcher.match(new), 'encoders': lambda: bare},
        reference='encoders',
        bar=1.15,
    )
