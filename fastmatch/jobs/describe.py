"The job behind `fastmatch inspect`: what a saved matcher is, from its files and without loading it."
import json

from ..data.columns import Columns, fields_in_words
from ..match.judge.paired import summary_table
from ..match.rule import Rule
from ..match.words import rule_in_words
from ..matcher.folder import read_matcher_files


def describe_matcher(
    folder,  # Of a saved matcher
) -> list[str]:  # Lines of text
    "Check every file of a saved matcher against its hash, and say what is inside."
    manifest, matcher_files = read_matcher_files(folder)
    matcher = json.loads(matcher_files['matcher.json'])
    listing_ids = json.loads(matcher_files['listings.json'])['ids']
    encoder = matcher['encoder'] or {}
    made_with = manifest['made_with']
    megabytes = sum(map(len, matcher_files.values())) / 1e6
    description = [
        f'{folder}: {len(matcher_files)} files, {megabytes:.1f} MB, every hash right',
        'made with ' + ', '.join(f'{package} {version}' for package, version in made_with.items()),
        f'catalogue: {len(listing_ids)} listings, {listing_ids[0]} to {listing_ids[-1]}']
    for kind in ('image', 'title'):
        if kind in encoder: description.append(f'{kind} encoder: {encoder[kind]["name"]}')
    if encoder.get('picture'):
        steps = [encoder['picture'], *encoder['picture'].get('batch_resizes', [])]
        description.append('pictures: ' + ', then '.join('x'.join(map(str, step['size'])) for step in steps))
    description += _runtimes(matcher['info'])
    # a matcher reads no groups
    columns = Columns.resolve(matcher['cols'], {}, Columns(group=None))
    description.append('columns: ' + ', '.join(columns.described()))
    fields = fields_in_words(Columns(fields=matcher.get('fields', {})))
    if fields:
        in_words = ', '.join(f'{name}: {said}' for name, said in fields.items())
        description.append(f'compared besides: {in_words}')
    return [*description, *_rule_lines(matcher['rule']), *_figures(matcher['info'])]


def _runtimes(info):
    "The runtimes that were exported, with what they lose."
    lines = []
    for runtime, figures in info.get('runtimes', {}).items():
        if runtime == 'onnx': lines.append(f'runtime onnx: torch to {figures["largest_difference"]:.1g}')
        elif 'loss' in figures:
            losses = ', '.join(f'{loss["diff"]:+.4f} ({loss["low"]:+.4f} to {loss["high"]:+.4f}) '
                               f'{setting.replace("_", " ")}' for setting, loss in figures['loss'].items())
            lines.append(f'runtime {runtime}: row F1 lost on {figures["listings"]} listings {losses}')
        else: lines.append(f'runtime {runtime}: matches agree with torch to {figures["agreement"]:.4f}')
    return lines


def _rule_lines(saved_rule):
    "The rule in words; steps of the user's own are named, their functions are not needed."
    own_steps = {step['do']: _not_at_hand for step in saved_rule.get('steps', ()) if ':' in step['do']}
    rule = Rule.from_dict(saved_rule, own_steps)
    lines = ['rule:', *(f'  {sentence}' for sentence in rule_in_words(rule))]
    if rule.pools is None:
        lines.append('  It knows no thresholds for other numbers of listings than that it was chosen among.')
    return lines


def _not_at_hand(*inputs, **parameters):
    "Stands for a function of the user's own, which is named and not run."


def _figures(info):
    "Figures of the fold that the rule was chosen on; a matcher made by hand may hold anything as its info."
    if not {'gain', 'settings'} <= set(info) or not {'judged', 'heldout'} & set(info): return []
    return ['\n' + summary_table(info)]
