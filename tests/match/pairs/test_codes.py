"Model numbers in titles, by hand."
import numpy as np

from fastmatch.match.pairs.codes import MOST_CODES, Codes, codes_of, letters_of


def test_what_is_a_code():
    codes = codes_of('sony dcr-trv30, 1234 12345 (x-1) cs3 mp3s 7-inch')
    assert codes == ['dcrtrv30', '12345', '7inch', 'mp3s']
    assert codes_of('turntable') == [] and letters_of(['dcr_trv 30!']) == ['dcrtrv30']
    many = ' '.join(f'a{number}' for number in range(1000, 1020))
    assert codes_of(f'{many} longest123') == ['longest123', *(f'a{number}' for number in range(1000, 1005))]
    assert MOST_CODES == 6


def test_found_alike_and_start():
    titles = ['lens ef50mm18', 'canon ef-50 mm 1.8 lens', 'canon ef50mm14 cap12', 'lens']
    rows, ids = np.array([0, 1, 0, 3]), np.array([1, 0, 2, 3])
    features = Codes(titles).features(rows, ids)
    # 'ef50' and '50'... of the second title are one code of four letters
    assert features['code found'].tolist() == [8, 4, 0, -1]
    assert features['code found back'].tolist() == [4, 8, 0, -1]
    np.testing.assert_allclose(features['code alike'], [.5, .5, 1 - 1 / 8, -1])
    assert features['code start'].tolist() == [4, 4, 7, -1]
