"""The README's three pictures, drawn by the package itself from the sample that comes with it.

    python docs/images/make.py        # some minutes on two cores; needs chromium

The encoders are the demo's as they come, untrained, so that anybody gets these pictures: groups that the
ladder's rule makes of the held-out fold, what each step of the ladder added in the catalogue, and the history
of a study of 200 rules.
"""
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageChops, ImageOps

from fastmatch.data.demo import demo_path
from fastmatch.match import Embeddings, among_themselves, in_the_catalogue
from fastmatch.match.search.ladder import ladder
from fastmatch.matcher import Encoder, Picture
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, load_tokenizer
from fastmatch.report.cards import Cards
from fastmatch.report.groups import _shown, found_groups
from fastmatch.report.pairs import judge_pairs
from fastmatch.report.render import page, render
from fastmatch.report.rule import steps_chart
from fastmatch.store import write_text
from fastmatch.study import study_figures, tune_rule

HERE = Path(__file__).resolve().parent
# what is seen of a page: wide enough for a README, twice the pixels for sharp text
WIDTH, HEIGHT = 960, 1400
SCALE = 1.5
MARGIN = 12  # pixels of white around a picture
ONLY_CONTENT = '''<style>h1, h2, nav, main > p, section > p { display: none }
body, main, section { margin: 0; padding: 4px; max-width: none; border: 0 }
svg.chart { max-width: 520px }</style></body>'''


def embedded():
    "(embeddings of all listings of the sample, their table)."
    path = demo_path()
    listings = pd.read_csv(path/'listings.csv', keep_default_na=False)
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    net = MatchNet(None, ImageEncoder('tf_efficientnet_lite0'),
                   TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id))
    picture = Picture((104, 104), 'squish', mean=[.5] * 3, std=[.5] * 3)
    files = [path/'images'/name for name in listings.image]
    vectors, *_ = Encoder(net, picture, tokenizer).embed(files, listings.title.tolist())
    return Embeddings(vectors, listings.posting_id, listings.title, listings.label_group), listings


def photograph(html, file):
    "A page's content as a picture, without the white around it."
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder)/'page.html', html.replace('</body>', ONLY_CONTENT))
        shot = Path(folder)/'page.png'
        subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
                        f'--force-device-scale-factor={SCALE}', f'--user-data-dir={folder}/profile',
                        f'--window-size={WIDTH},{HEIGHT}', f'--screenshot={shot}',
                        (Path(folder)/'page.html').as_uri()], check=True, capture_output=True, timeout=120)
        picture = Image.open(shot).convert('RGB')
    corner = Image.new('RGB', picture.size, picture.getpixel((0, 0)))
    picture = picture.crop(ImageChops.difference(picture, corner).getbbox())
    picture = ImageOps.expand(picture, MARGIN, corner.getpixel((0, 0)))
    # 128 colors are enough for text on white and small pictures, in a third of the bytes
    picture.quantize(128).save(file, optimize=True)


def some_groups(judged):
    "A whole group, one that lacks a listing, and one with a mistake: of each kind the first of four or five."
    for kind in ('right', 'incomplete', 'mixed'):
        of_kind = [found for found in found_groups(judged) if found.kind == kind]
        yield next(found for found in of_kind if len(found) + len(found.missed) in (4, 5))


def main():
    embeddings, listings = embedded()
    is_held_out = (listings.fold == 0).to_numpy()
    climbed = ladder(in_the_catalogue(embeddings, is_held_out), 'full', pools=False)
    photograph(page('', '', [('Steps', steps_chart(climbed))]), HERE/'ladder.png')

    alone = among_themselves(embeddings.take(is_held_out))
    judged = judge_pairs(alone.spaces, ladder(alone, pools=False).rule, alone.groups.codes)
    files = [demo_path()/'images'/name for name in listings.image[is_held_out]]
    cards = Cards(embeddings.take(is_held_out), [files[row] for row in alone.order])
    shown = [_shown(found, judged.groups, cards) for found in some_groups(judged)]
    kinds = dict.fromkeys(('right', 'incomplete', 'mixed'), ('right', ''))
    groups = render('groups.html', total=1, counts=dict.fromkeys(kinds, 0), kinds=kinds, groups=shown)
    photograph(page('', '', [('Groups', groups)]), HERE/'groups.png')

    _, study = tune_rule(alone, halvings=0)
    history = dict(study_figures(study))['History']
    history.savefig(HERE/'study.png', dpi=130)
    Image.open(HERE/'study.png').convert('RGB').quantize(64).save(HERE/'study.png', optimize=True)
    print(np.round([rung.heldout.mean for rung in climbed.rungs], 4))


if __name__ == '__main__': main()
