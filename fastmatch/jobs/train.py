"The main job: a table of listings in; matches, a rule and figures on groups that training never saw out."
import json
import math
import tempfile
from dataclasses import dataclass, replace

import numpy as np
from fastai.vision.augment import Resize, ResizeMethod

from ..callback.state import preserved_randomness
from ..core import InputError, package_version, seed_everything
from ..data.augment import augs
from ..data.block import MatchDataLoaders
from ..data.columns import Columns, fields_in_words
from ..data.kinds import cells_of
from ..learner import MatchLearner, match_learner
from ..learner.base import check_one_batch
from ..match.cells import as_text
from ..match.embeddings import Embeddings
from ..match.judge.paired import paired
from ..match.judge.setting import AMONG_THEMSELVES, IN_THE_CATALOGUE, among_themselves
from ..match.matches import Matches
from ..match.rule import Rule
from ..match.words import cut_in_words, rule_in_words
from ..matcher import Matcher, check_blanks, load_matcher
from ..matcher.folder import is_matcher_file
from ..metrics import MAPAtR, RecallAt, RowF1
from ..report import write_report
from ..store import atomic_folder, check_new_folder, table_text, write_text
from .judge import (
    Judgement,
    check_sources,
    judge,
    judge_plain,
    settings_for,
    summary_rows,
    with_share,
)
from .options import RuleChoice, Training, refuse_unknown, take_columns, with_keywords
from .progress import Stages, StepBar, epoch_logger, suggested_rate

UNTRAINABLE = ('alone', 'tfidf', 'phash')  # rows without an encoder: training can't change them
PACKAGES = ('fastmatch', 'fastai', 'torch', 'timm', 'transformers', 'faiss-cpu', 'scikit-learn', 'numpy')
FILES = ('manifest.json', 'matches.csv', 'summary.json', 'report.html')  # and the matcher's state
# what a matcher keeps of the summary
INFO = ('promised', 'judged', 'heldout', 'gain', 'ladder', 'seed', 'settings', 'listings')


@dataclass
class Outcome:
    "What training and judging on one held-out fold gave."
    learn: MatchLearner  # The trained Learner
    emb: Embeddings  # Of the held-out listings
    everything: Embeddings  # Of all listings, those that were trained on flagged
    judgement: Judgement  # The rule, and what it and its parts are worth in each setting
    untrained: dict  # 'untrained_' and a modality or 'fused' -> `HeldOut`, among themselves
    matches: Matches  # Of the held-out listings among themselves
    seconds: dict  # Stage -> seconds
    seed: int  # Of the run
    settings: dict  # What the run was called with

    @property
    def rule(self) -> Rule:
        "The rule, chosen on all held-out listings."
        return self.judgement.rule

    @property
    def judged_listings(self) -> Embeddings:
        "The listings of the setting that the rule was chosen in, in the order that its `order` counts them."
        return self.everything if self.judgement.main == IN_THE_CATALOGUE else self.emb

    @property
    def tables(self) -> dict:
        """Name of the setting -> {row: `HeldOut`}, that which the matcher will work in first: 'alone', each
        modality, 'fused', 'rule', and, among themselves, the same with untrained encoders."""
        tables = dict(self.judgement.tables)
        tables[AMONG_THEMSELVES] = self.table
        return tables

    @property
    def table(self) -> dict:
        "Row -> `HeldOut` of the listings among themselves, the rows of untrained encoders included."
        return {**self.judgement.tables[AMONG_THEMSELVES], **self.untrained}

    @property
    def gain(self):
        "Row F1 of the trained fusion over the untrained one, paired (`Paired`)."
        return paired(self.table['fused'], self.table['untrained_fused'])

    @property
    def gains(self) -> dict:
        "What is compared -> `Paired`."
        main = self.judgement.tables[self.judgement.main]
        return {'rule over fused': paired(main['rule'], main['fused']),
                'fused over untrained_fused': self.gain}

    def summary(self) -> dict:
        "What `summary.json` holds, in plain values."
        dls = self.learn.dls
        of_judgement = self.judgement.summary()
        of_judgement['judged'][AMONG_THEMSELVES]['rows'] = summary_rows(self.table)
        return {
            **of_judgement,
            # the same as in 'judged', where earlier versions have it
            'heldout': summary_rows(self.table),
            'gain': {name: gain.to_dict() for name, gain in self.gains.items()},
            'rule': self.rule.to_dict(),
            'rule_in_words': rule_in_words(self.rule),
            'seconds': self.seconds,
            'seed': self.seed,
            'settings': self.settings,
            'listings': {'train': len(dls.train_df), 'heldout': len(self.emb),
                         'skipped': dls.skipped.to_dict('records'), 'moved': len(dls.moved),
                         **({'unlabelled': len(dls.unlabelled)} if len(dls.unlabelled) else {})},
            'versions': {package: package_version(package) for package in PACKAGES}}


def train_and_judge(
    df,  # Listings with groups: DataFrame
    path,  # Folder of the images
    columns: Columns | None = None,  # Of the table; default Kaggle Shopee's names, without folds
    *,
    training: Training | None = None,  # Encoders, epochs, picture size and the like; default `Training()`
    valid_fold: int = 0,  # Fold held out: not used in training; the rule is chosen and judged on it
    lr: float | str = 2e-3,  # Learning rate, times `LR_MULT` for each parameter group; 'auto' asks lr_find
    sampler: str | None = None,  # How batches are drawn: None, 'pk', 'weighted' or 'oversample'
    loss_func=None,  # Default `match_learner`'s
    choice: RuleChoice | None = None,  # How the rule is chosen, and under what it is judged
    catalogue: str = 'all',  # What the matcher will hold, which the rule is chosen for: 'all' or 'heldout'
    echo=print,  # Called with a line of text at each stage of the work
    # Fields of `Training`, `RuleChoice` and `Columns` by keyword: `epochs=3`, `rule='plain'`,
    # `image_col='photo'`, ...
    **options,
) -> Outcome:
    """Train on the other folds, choose the rule on the held-out one, and judge it where it will be used:
    looked up in the catalogue of all listings, and among themselves."""
    columns = take_columns(columns, options)
    training = with_keywords(training or Training(), options)
    choice = with_keywords(choice or RuleChoice(), options)
    refuse_unknown(options, train_and_judge, Training, RuleChoice)
    if choice.seed is None: choice = replace(choice, seed=training.seed)
    _check_options(lr, catalogue, training, choice)
    stages = Stages(echo)
    seed_everything(training.seed)
    settings = {**_settings(columns, training, lr, sampler, loss_func, valid_fold),
                'rule': choice.rule, 'matchless': choice.matchless}
    with stages('data', f'reading {len(df)} listings'):
        dls = loaders(df, path, columns, training, valid_fold, sampler=sampler)
        learn = match_learner(dls, training.image_arch, training.text_arch, loss_func, metrics=monitors())
    check_one_batch(dls)
    rehearse(learn)
    echo(f'  {len(dls.train_df)} to train on, {len(dls.valid_df)} held out; {len(dls.skipped)} skipped, '
         f'{len(dls.moved)} moved to keep groups together' + _without_group(dls.unlabelled))
    with stages('untrained', 'embedding the held-out listings with untrained encoders'):
        untrained = _untrained(learn, choice)
    with stages('train', f'training {training.epochs} epochs'), learn.no_bar(), learn.no_mbar():
        learn.logger = epoch_logger(learn, echo)
        if lr == 'auto': settings['lr'] = lr = suggested_rate(learn, echo)
        learn.fit_flat_cos(training.epochs, lr, cbs=StepBar(lr))
    with stages('embed', f'embedding {len(dls.all_df)} listings'):
        everything = learn.embeddings(dls.all_df, tta=True)
        # listings without a group are found, and not asked for
        held_out = np.append(dls.is_valid, np.zeros(len(dls.unlabelled), bool))
    with stages('rule', 'choosing the rule'):
        judgement = judge(settings_for(everything, held_out, choice, catalogue), choice, echo)
        embeddings = everything.take(held_out)
        decision = judgement.rule.run(among_themselves(embeddings).spaces)
    if decision.cut_short.any(): echo(f'  {cut_in_words(decision.cut_short.sum(), decision.rule)}')
    return Outcome(learn, embeddings, everything, judgement, untrained, decision.matches, stages.seconds,
                   training.seed, settings)


def _without_group(unlabelled):
    return f'; {len(unlabelled)} without a group, for the catalogue alone' if len(unlabelled) else ''


def _check_options(learning_rate, catalogue, training, choice):
    "Raise `InputError` for what would fail only after hours of training."
    _check_rate(learning_rate)
    _check_catalogue(catalogue)
    training.check()
    choice.check()


def _untrained(learner, choice):
    "What each modality and the plain fusion of encoders as they came are worth among themselves."
    setting = with_share(among_themselves(learner.embeddings(tta=True)), choice)
    return {f'untrained_{row_name}': scores for row_name, scores in judge_plain(setting, choice.seed).items()
            if row_name not in (*UNTRAINABLE, *learner.dls.columns.fields)}


def rehearse(
    learner: MatchLearner,  # Not yet trained
):
    """Do with a few listings what comes after the training: embed them, save a matcher, load it, embed them
    again and, where columns are compared, match them.

    What can't be done then raises its error now.
    """
    dls = learner.dls
    if dls.columns.source is not None:
        check_sources(dls.valid_df[dls.columns.source].to_numpy(object), dls.columns.source)
    listings, fields = _with_all_columns(dls), dls.columns.fields
    rule = Rule('mean', {learner.modalities[0]: 1.}, .5, compared=tuple(fields))
    # the training draws the same random numbers with and without a rehearsal
    with preserved_randomness(), tempfile.TemporaryDirectory() as matcher_folder:
        learner.matcher(listings, rule, tta=True).save(matcher_folder)
        loaded = load_matcher(matcher_folder, str(dls.device))
        found, _ = loaded.embed(listings, dls.image_folder)
        if fields: loaded.match(found)
    expected = learner.embeddings(listings, tta=True)
    for modality, vectors in expected.items():
        if not np.allclose(found[modality], vectors, atol=.05):
            raise InputError(f'{modality}: a saved matcher embeds otherwise than the encoder that it is made '
                             'of, whose spec() or state_dict() lack something')


def _with_all_columns(dls):
    "Two listings, and for each column the first that has something in it: of nothing no space is made."
    known = [np.array([as_text(cell) for cell in cells], bool)
             for _, cells in cells_of(dls.all_df, dls.columns.fields).values()]
    rows = {0, 1, *(int(of_column.argmax()) for of_column in known)}
    return dls.all_df.iloc[sorted(rows)]


def monitors() -> list:
    "The metrics that the jobs watch after each epoch: recall@1, map@r, row_f1_max."
    return [RecallAt(1), MAPAtR(), RowF1()]


def loaders(
    listings,  # Listings with groups: DataFrame
    image_folder,  # Folder of the images
    columns: Columns,  # Of the table
    training: Training,  # Picture size, augmentation, batch size and the like
    valid_fold: int,  # Fold held out for validation
    **kwargs,  # More for `MatchDataLoaders.from_df`
) -> MatchDataLoaders:
    "The listings as fastai batches: pictures squeezed to a square of `training.size` pixels, and augmented."
    return MatchDataLoaders.from_df(
        listings, image_folder, columns, valid_fold, seed=training.seed, bs=training.bs,
        on_error=training.on_error, item_tfms=Resize(training.size, method=ResizeMethod.Squish),
        batch_tfms=augs(training.aug), num_workers=training.num_workers, device=training.device,
        **{'n_folds': training.n_folds, **kwargs})


def _check_catalogue(catalogue):
    if catalogue not in ('all', 'heldout'):
        raise InputError(f"catalogue={catalogue!r}: choose 'all' or 'heldout'")


def _check_rate(learning_rate):
    if learning_rate == 'auto': return
    if isinstance(learning_rate, (int, float)) and 0 < learning_rate < math.inf: return
    raise InputError(f"lr={learning_rate!r}: give a number above 0, or 'auto'")


def _settings(columns, training, learning_rate, sampler, loss_func, valid_fold):
    "What `summary.json` keeps of a call."
    of_fields = {'fields': fields_in_words(columns)} if columns.fields else {}
    return dict(
        columns=columns.by_keyword(), **of_fields,
        image_arch=training.image_arch, text_arch=training.text_arch,
        size=training.size, aug=training.aug, epochs=training.epochs, lr=learning_rate, bs=training.bs,
        sampler=sampler, loss='default' if loss_func is None else repr(loss_func), n_folds=training.n_folds,
        valid_fold=valid_fold, num_workers=training.num_workers, device=training.device)


def run(
    df,  # Listings with groups: DataFrame
    path,  # Folder of the images
    out,  # Folder to write: there whole or not at all
    catalogue: str = 'all',  # What the matcher knows: 'all' listings, or the 'heldout' ones
    force: bool = False,  # Replace an earlier result in `out`
    **kwargs,  # For `train_and_judge`
) -> dict:  # What `summary.json` holds
    """Train, judge and decide on the held-out fold, and write the result as files.

    `out` then holds the matcher, `matches.csv` (of the held-out listings), `summary.json` and `report.html`.
    """
    _check_catalogue(catalogue)
    # before the work: a folder that can't be written should cost no training run
    check_new_folder(out, is_result, force)
    echo = kwargs.get('echo', print)
    columns = take_columns(kwargs.pop('columns', None), kwargs)
    if columns.id in df: check_blanks(df[columns.id].dropna().astype(str), columns.id)
    outcome = train_and_judge(df, path, columns, catalogue=catalogue, **kwargs)
    summary = outcome.summary()
    stages = Stages(echo, outcome.seconds)  # the same seconds that the summary holds
    with stages('matcher', 'making the matcher'):
        matcher = _matcher(outcome, catalogue, {entry: summary[entry] for entry in INFO})
    with atomic_folder(out) as unfinished:
        matcher.save(unfinished)
        matches = outcome.matches.to_frame(outcome.emb.ids)
        write_text(unfinished/'matches.csv', table_text(matches))
        write_text(unfinished/'summary.json', json.dumps(summary, indent=2) + '\n')
        # the report only illustrates the result: should it fail, hours of training are still worth keeping
        try: write_report(outcome, unfinished/'report.html')
        except Exception as error: echo(f'no report.html: {type(error).__name__}: {error}')
    return summary


def _matcher(outcome, catalogue, info):
    learner = outcome.learn
    known = outcome.everything if catalogue == 'all' else outcome.emb
    return Matcher(outcome.rule, known, learner.encoder(tta=True), learner.dls.table_columns, info)


def is_result(
    filename: str,  # Of a file or folder
) -> bool:
    "Whether `run` writes a file or folder of this name."
    return filename in FILES or is_matcher_file(filename)
