"The menus: names, sizes, and steps that are bound to a fusion."
import pytest

from fastmatch.core import InputError
from fastmatch.match import Step, fusion_grid
from fastmatch.match.search.menu import (
    FULL,
    LARGE,
    MENUS,
    SHORT,
    Menu,
    bound,
    finder_fusions,
    fusions,
    menu_of,
)
from fastmatch.match.search.structure import RuleStructure


def test_by_name_and_by_size():
    assert menu_of(None, 100) is FULL and menu_of(None, LARGE) is SHORT
    assert all(menu_of(name, 100) is menu for name, menu in MENUS.items())
    own = Menu(min2=False)
    assert menu_of(own, 10**6) is own
    with pytest.raises(InputError, match="menu='large': choose one of full"): menu_of('large', 100)


def test_fusions_are_those_of_the_grid():
    names = ('image', 'title')
    grid = fusion_grid(names, ('mean', 'power'))
    structures = fusions(names, ('mean', 'power'))
    assert len(structures) == len(grid)
    for (how, weights, *options), structure in zip(grid, structures):
        assert structure.fusion == {
            'how': how,
            'weights': weights,
            **({'options': options[0]} if options else {}),
        }
    finders = [dict(structure.weights)['image'] for structure in finder_fusions(names)]
    assert sorted(finders) == [0, .2, .4, .6, .8, 1]


def test_steps_are_bound_to_a_fusion():
    fusion = RuleStructure('mean', (('image', 1.),))
    steps = Step('expand', by='fused', k=2), Step('augment', k=3), Step('augment', by='fused', k=2)
    # what changes queries alone comes last: its result has no vectors to refine further
    assert bound(steps, fusion) == (Step('augment', k=3), Step('augment', by=fusion.fusion, k=2),
                                    Step('expand', by=fusion.fusion, k=2))
