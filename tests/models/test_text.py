"Title encoders pool token vectors as sentence-transformers does, in float32 whatever the checkpoint is in."
import json

import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.layers import padding
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


def tiny_bert(n_words=60, **kwargs):
    from transformers import BertConfig, BertModel
    return BertModel(BertConfig(vocab_size=n_words, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                intermediate_size=8, **kwargs))


@pytest.mark.parametrize('pretrained', [True, False])
def test_a_checkpoint_in_half_precision_is_trained_in_float32(tmp_path, pretrained):
    tiny_bert().to(torch.bfloat16).save_pretrained(tmp_path)
    encoder = TitleEncoder(tmp_path, pretrained=pretrained, pool='mean', pad_id=0)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    # small steps are not rounded away
    before = encoder.body.embeddings.LayerNorm.weight.detach().clone()
    with torch.no_grad(): encoder.body.embeddings.LayerNorm.weight += 1e-4
    assert (encoder.body.embeddings.LayerNorm.weight != before).all()
    # what is saved comes back in the same precision, and so does what was asked for
    assert TitleEncoder.from_spec(encoder.spec()).dtype == torch.float32
    asked = TitleEncoder(tmp_path, pool='mean', pad_id=0, dtype=torch.bfloat16)
    assert asked.dtype == torch.bfloat16
    again = TitleEncoder.from_spec(json.loads(json.dumps(asked.spec())))
    again.load_state_dict(asked.state_dict())
    ids = torch.randint(60, (3, 5))
    assert again.dtype == torch.bfloat16 and torch.equal(again.eval()(ids), asked.eval()(ids))


def test_a_spec_of_an_earlier_version_keeps_its_precision():
    encoder = TitleEncoder('mine', pool='cls', pad_id=0, body=tiny_bert())
    spec = encoder.spec()
    spec['config']['dtype'] = 'bfloat16'
    assert TitleEncoder.from_spec(spec).dtype == torch.bfloat16


def test_of_an_encoder_with_a_decoder_the_encoder_is_taken(tmp_path):
    import transformers
    sizes = dict(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    config = transformers.T5Config(vocab_size=60, **sizes)
    bart = transformers.BartConfig(vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1,
                                   encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
                                   decoder_ffn_dim=16)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    models = {'whole': transformers.T5Model(config), 'encoder': transformers.T5EncoderModel(config),
              'bart': transformers.BartModel(bart)}
    for name, model in models.items():
        model.eval().save_pretrained(tmp_path/name)
        encoder = TitleEncoder(tmp_path/name, pool='mean', pad_id=0).eval()
        own = model.get_encoder()(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        torch.testing.assert_close(encoder(ids)[1], own[1, :2].mean(0))
        again = TitleEncoder.from_spec(json.loads(json.dumps(encoder.spec()))).eval()
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again(ids), encoder(ids))


def test_weights_of_another_shape_than_the_settings_say(tmp_path):
    from transformers import BertTokenizer
    tiny_bert().save_pretrained(tmp_path)
    BertTokenizer(vocab={word: number for number, word in enumerate(['[PAD]', '[UNK]', '[CLS]', '[SEP]'])}
                  ).save_pretrained(tmp_path)
    settings = json.loads((tmp_path/'config.json').read_text())
    (tmp_path/'config.json').write_text(json.dumps({**settings, 'hidden_size': 16}))
    with pytest.raises(InputError, match='do not belong to its config.json'): TitleEncoder(str(tmp_path))


@has_minilm
@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('pool', ['mean', 'cls', 'lasttoken', 'max'])
def test_titles_of_a_batch_that_are_read_apart(side, pool, monkeypatch):
    encoder = TitleEncoder(pool=pool).train()
    for module in encoder.modules():
        # what drops out at random differs from call to call
        if isinstance(module, torch.nn.Dropout): module.p = 0.
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    tokenizer.padding_side = side
    titles = [f'{number} ' + 'red bag with two pockets ' * (1 + number % 7) for number in range(41)]
    ids = tokenizer([*titles, ''], padding=True, return_tensors='pt')['input_ids']
    ids[-1] = encoder.pad_id  # a title without any token
    shapes = []
    encoder.body.register_forward_pre_hook(
        lambda module, args, options: shapes.append(tuple(options['input_ids'].shape)), with_kwargs=True)
    weights = torch.randn(len(ids), encoder.n_out, generator=torch.Generator().manual_seed(0))

    def run():
        encoder.zero_grad()
        features = encoder(ids)
        (features * weights).sum().backward()
        return features.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters()}
    apart, apart_gradients = run()
    n_apart, n_whole = sum(rows * columns for rows, columns in shapes), ids.numel()
    # padding in front is kept
    if side == 'right': assert len(shapes) == 3 and n_apart < .8 * n_whole
    else: assert shapes == [tuple(ids.shape)]
    monkeypatch.setattr(padding, 'WORTHWHILE', 0.)
    whole, whole_gradients = run()
    assert shapes[-1] == tuple(ids.shape)
    torch.testing.assert_close(apart, whole, atol=1e-5, rtol=1e-5)
    assert len(whole_gradients) > 90
    for name, gradient in whole_gradients.items():
        torch.testing.assert_close(apart_gradients[name], gradient, atol=2e-4, rtol=2e-4)
    # embedding reads a batch as it comes: whoever wants it sorted has sorted it
    monkeypatch.undo()
    encoder.eval()(ids)
    assert shapes[-1] == tuple(ids.shape)
