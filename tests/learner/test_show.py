"Listings drawn in rows, with right, wrong and missed ones beside them."
import matplotlib.pyplot as plt

from tests.learner.small import make


def test_pictures_of_matches_and_mistakes(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    _, groups, matches, f1 = learner._judged(None)
    plt.close('all')
    learner.show_matches(2, 3)
    cells = [ax for ax in plt.gcf().axes if ax.axison]
    assert len(cells) == 2 * 4 and [ax.get_xlabel() for ax in cells[::4]] == ['listing'] * 2
    learner.show_mistakes(1, 4)
    worst = int(f1.argmin())
    notes = [ax.get_xlabel() for ax in plt.gcf().axes if ax.axison][1:]
    n_wrong = sum(groups[other] != groups[worst] for other in matches[worst])
    n_missed = sum(groups == groups[worst]) - sum(groups[other] == groups[worst] for other in matches[worst])
    n_shown = min(n_wrong, max(4 - n_missed, 2))
    shown = [note.split()[0] for note in notes]
    assert shown == (['wrong'] * n_shown + ['missed'] * n_missed)[:4] and shown
    plt.close('all')
