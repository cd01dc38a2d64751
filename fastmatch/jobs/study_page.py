"What a tuning job was worth: in words, as one html page, and as files."
import base64
import io

from ..match.judge.paired import Paired, paired
from ..report.render import page, render
from ..store import atomic_folder, table_text, write_text
from ..study import heldout_trial
from ..study.engine.pruner import direction_of
from ..study.tune import describe_trial

TRIALS = 20  # best trials that the page lists


def tuning_gain(
    study,  # Of `tune_listings`
) -> tuple[str, Paired | None]:  # (lines of text, the gain; None without a default, or where it is the best)
    "The best trial against the first, which is the kit as it comes, on the listings put aside."
    monitor = study.user_attrs['kept']['monitor']
    best_trial = study.best_trial
    sentences = [f'best, {describe_trial(best_trial, monitor)}']
    default_trial = next((trial for trial in _complete(study) if trial.user_attrs.get('default')), None)
    if default_trial is None:
        sentences.append('the default was not among the trials that came to their end: '
                         'nothing to compare with')
        return '\n'.join(sentences), None
    if default_trial.number == best_trial.number:
        sentences.append('that is the default: no trial was better')
        return '\n'.join(sentences), None
    best_scores = heldout_trial(study)
    default_scores = heldout_trial(study, 'default')
    gain = paired(best_scores, default_scores)
    sentences += [
        f'default, {describe_trial(default_trial, monitor)}',
        f'{len(best_scores.row_f1)} listings put aside: row F1 {best_scores.mean:.3f}, '
        f'default {default_scores.mean:.3f}; gain {gain.diff:+.3f}, '
        f'95% interval {gain.low:+.3f} to {gain.high:+.3f}']
    return '\n'.join(sentences), gain


def study_page(
    study,  # Of `tune_listings`
) -> str:  # html
    "The study as one page that needs nothing else: what it was worth, its pictures, its best trials."
    from ..study.draw import study_figures
    sentences = tuning_gain(study)[0]
    pictures = [(picture_title, render('picture.html', alt=picture_title, picture=_data_uri(figure)))
                for picture_title, figure in study_figures(study)]
    page_top = render('study_top.html', lines=sentences.splitlines())
    return page(f'Study {study.study_name}', page_top, [*pictures, ('Best trials', _best_trials(study))])


def write_study(
    study,  # Of `tune_listings`
    folder,  # Folder to write, whole or not at all
):
    "Write `STUDY_FILES`: the page, and a table with a row a trial."
    trials_table = study.trials_dataframe(('number', 'state', 'value', 'duration', 'params'))
    with atomic_folder(folder) as unfinished:
        write_text(unfinished/'report.html', study_page(study))
        write_text(unfinished/'trials.csv', table_text(trials_table))


def _complete(study):
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == 'COMPLETE']


def _best_trials(study):
    "The table of the best trials, with the value of each parameter."
    monitor = study.user_attrs['kept']['monitor']
    is_descending = direction_of(monitor) != 'minimize'
    trials = sorted(_complete(study), key=lambda trial: trial.value, reverse=is_descending)[:TRIALS]
    parameters = list(dict.fromkeys(parameter for trial in trials for parameter in trial.params))
    table_rows = [
        [trial.number, f'{trial.value:.4f}', f'{trial.user_attrs["test_row_f1"]:.3f}',
         *(_cell(trial.params.get(parameter, '')) for parameter in parameters)] for trial in trials]
    column_names = ['trial', monitor, 'row F1 put aside', *parameters]
    return render('study_trials.html', head=column_names, rows=table_rows)


def _cell(value): return f'{value:.3g}' if isinstance(value, float) else value


def _data_uri(figure):
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=130)
    return f'data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}'
