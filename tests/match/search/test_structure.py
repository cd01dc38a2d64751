"A structure becomes the rule that says the same."
from fastmatch.match import Rule, Step
from fastmatch.match.search.structure import RuleStructure

WEIGHTS = ('image', .6), ('title', .4)


def test_a_structure_as_a_rule():
    plain = RuleStructure('power', WEIGHTS, 3.)
    assert plain.rule(.5, k=9) == Rule('power', dict(WEIGHTS), .5, 9, options={'power': 3.})
    fused = RuleStructure('mean', WEIGHTS, ranks=2)
    steps = Step('augment', by=fused.fusion, k=2), Step('blend', by={'how': 'mean', 'weights': {'image': 1.}})
    structure = RuleStructure('mean', WEIGHTS, vector_steps=steps, score_steps=(Step('veto'),), ranks=2)
    rule = structure.rule((.4, .6))
    # neighbors by the rule's own fusion are said in a word, others in full
    assert [step.by for step in rule.steps[:2]] == ['fused', {'how': 'mean', 'weights': {'image': 1.}}]
    assert [step.do for step in rule.steps] == ['augment', 'blend', 'veto', 'min2']
    assert rule.steps[-1].params == {'threshold': .4} and rule.threshold == .6
    # a lower threshold for the nearest that is none says nothing
    assert [step.do for step in structure.rule((.6, .6)).steps] == ['augment', 'blend', 'veto']


def test_in_words():
    step = Step('augment', by={'how': 'mean', 'weights': dict(WEIGHTS)}, k=2)
    structure = RuleStructure('mean', WEIGHTS, vector_steps=(step,), score_steps=(Step('veto'),), ranks=2)
    assert str(structure) == 'mean of image 0.6, title 0.4, augment by fused neighbors (k 2), veto, min2'
    assert str(RuleStructure('mean', (('image', 1.),))) == 'image'
    assert hash(structure) == hash(RuleStructure('mean', WEIGHTS, vector_steps=(step,),
                                                 score_steps=(Step('veto'),), ranks=2))
