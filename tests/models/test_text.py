"Title encoders pool token vectors as sentence-transformers does, whatever the padding."
import torch
import torch.nn.functional as F

from fastmatch.models import TitleEncoder, load_tokenizer
from tests.models.needs import has_minilm


@has_minilm
def test_minilm_is_mean_pooled_as_sentence_transformers_does():
    encoder, tokenizer = TitleEncoder().eval(), load_tokenizer('all-MiniLM-L6-v2')
    titles = ['a red bag', 'a much longer title about a blue duffle bag with two pockets', 'x']
    batch = tokenizer(titles, padding=True, return_tensors='pt')
    with torch.no_grad():
        token_vectors = encoder.body(**batch).last_hidden_state
        masks = batch['attention_mask'].bool()
        expected = torch.stack([vectors[mask].mean(0) for vectors, mask in zip(token_vectors, masks)])
        torch.testing.assert_close(encoder(batch['input_ids']), expected)
        # padding changes nothing
        torch.testing.assert_close(
            encoder(F.pad(batch['input_ids'], (0, 5), value=encoder.pad_id)), expected, atol=2e-5, rtol=1e-4
        )
        torch.testing.assert_close(TitleEncoder(pool='cls').eval()(batch['input_ids']), token_vectors[:, 0])
    assert encoder.n_out == 384 and tokenizer.pad_token_id == encoder.pad_id
