"The quick ways to a rule: the best fusion of given candidates, or the ladder's shortest form in a setting."
from ...core import InputError
from ..candidates import Candidates
from ..judge.choose import fusion_options
from ..judge.groups import Groups
from ..judge.setting import Setting
from ..matches import MAX_MATCHES
from ..rule import Rule
from ..thresholds.sweep import Sweep
from .ladder import ladder


def choose_rule(
    # Where the rule is going to work; or candidates of a self-join, with `groups`
    where: Setting | Candidates,
    groups=None,  # (n,) groups, or `Groups`, of candidates; a setting has its own
    grid: list | None = None,  # For candidates: `FusionOption`s or tuples; default `fusion_grid`
    max_matches: int = MAX_MATCHES,  # For candidates: most matches a row, itself included
    seed: int = 0,  # For a setting: of halvings and draws
) -> Rule:
    """A rule without much ado: for candidates the fusion and the threshold with the best mean row F1 on all
    these listings; for a setting the `ladder` of its quickest menu, with thresholds for other pools.

    Raises `InputError` for listings that an encoder was trained on, whose similarities are near 1.
    `ladder` and `tune_rule` search further, and say what the rule is worth on groups it was not chosen on.
    """
    if isinstance(where, Setting):
        if groups is not None or grid is not None:
            raise InputError(
                'groups and grid are for candidates: a setting has groups, and a menu is for `ladder`')
        return ladder(where, 'quick', halvings=1, seed=seed).rule
    if groups is None: raise InputError('groups: give the true groups of the candidates, or a `Setting`')
    where.refuse_trained_on('choosing a rule')
    return _best_fusion(where, Groups.of(groups, len(where.ids)), grid, max_matches)


def _best_fusion(candidates, groups, grid, max_matches):
    best_option = None
    for option in fusion_options(candidates, grid):
        threshold, mean_f1 = Sweep(option.fuse(candidates), groups, max_matches).best()
        # of equal options the first stays: a grid starts with its plainest
        if best_option is None or mean_f1 > best_option[2]: best_option = option, threshold, mean_f1
    if best_option is None: raise InputError('grid: give one fusion at least')
    option, threshold, mean_f1 = best_option
    score = {'row_f1_chosen_on': round(mean_f1, 5)}
    return Rule(
        option.how, dict(option.weights), threshold, k=candidates.k, max_matches=max_matches, score=score,
        join=candidates.join, options=dict(option.options), made_with=candidates.made_with)
