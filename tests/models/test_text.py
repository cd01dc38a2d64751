"Title encoders pool token vectors as sentence-transformers does, whatever the padding."
import torch
import torch.nn.functional as F

from fastmatch.models import TitleEncoder, load_tokenizer
from tests.models.needs import has_minilm


@has_minilm
def test_minilm_is_mean_pooled_as_sentence_transformers_does():
    enc, tok = TitleEncoder().eval(), load_tokenizer('all-MiniLM-L6-v2')
    titles = ['a red bag', 'a much longer title about a blue duffle bag with two pockets', 'x']
    b = tok(titles, padding=True, return_tensors='pt')
    with torch.no_grad():
        h = enc.body(**b).last_hidden_state
        want = torch.stack([vectors[m.bool()].mean(0) for vectors, m in zip(h, b['attention_mask'])])
        torch.testing.assert_close(enc(b['input_ids']), want)
        # padding changes nothing
        torch.testing.assert_close(
            enc(F.pad(b['input_ids'], (0, 5), value=enc.pad_id)), want, atol=2e-5, rtol=1e-4
        )
        torch.testing.assert_close(TitleEncoder(pool='cls').eval()(b['input_ids']), h[:, 0])
    assert enc.n_out == 384 and tok.pad_token_id == enc.pad_id
