"fastai's loggers under a Learner over listings: what they can't log is told, and what has broken is mended."
import sys

NO_EXAMPLES = ('log_preds=False: there are no classes to show for listings that are matched, '
               'learn.show_matches() shows them')
NO_SHOWING = 'log_preds=False: learn.show_worst() and learn.show_confusions() show items'
NO_TRACE = 'trace_model=False: in training the model returns what each head found, which torch can not trace'


def logger_problem(
    learner,  # `MatchLearner` or `ClassifyLearner`
    callback,  # Any
) -> str | None:  # What to give instead; None for nothing
    "What fastai's `TensorBoardCallback` and `WandbCallback` are asked to log and can't."
    # their modules need packages that few have: known by name
    names = [kind.__name__ for kind in type(callback).__mro__]
    is_match = hasattr(learner, 'embeddings')
    if 'TensorBoardCallback' in names:
        wanted = []
        if callback.trace_model and (is_match or len(learner.model.heads) > 1): wanted.append(NO_TRACE)
        if callback.log_preds: wanted.append(NO_EXAMPLES if is_match else NO_SHOWING)
        return 'give ' + '; '.join(wanted) if wanted else None
    # of a classifier it finds out itself, says so and goes on
    if 'WandbCallback' in names and callback.log_preds and is_match: return f'give {NO_EXAMPLES}'
    return None


def mend_wandb():
    """Let fastai's `WandbCallback` note settings that are plain values.

    It asks fastcore's `init_args` for the arguments of each; since fastcore looks them up in `vars`, numbers
    and texts, which have none, raise a TypeError there, for every Learner (fastai 2.8.12, fastcore 2).
    """
    module = sys.modules.get('fastai.callback.wandb')
    if module is None or getattr(module.init_args, 'takes_plain_values', False): return
    theirs = module.init_args

    def init_args(value): return theirs(value) if hasattr(value, '__dict__') else {}
    init_args.takes_plain_values = True
    module.init_args = init_args


__all__ = ['logger_problem', 'mend_wandb']
