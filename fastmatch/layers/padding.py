"Token ids of titles: how many there may be, and those of several titles as one tensor for a text encoder."
import torch


def most_tokens(
    tokenizer,  # A transformers tokenizer; one of another kind may say nothing about its encoder's limit
    max_len: int,  # Tokens that are asked for
) -> int:
    "After how many tokens a title is truncated: `max_len`, or fewer where the encoder reads fewer."
    return min(max_len, getattr(tokenizer, 'model_max_length', max_len))


def pad_token_ids(
    rows: list[list[int]],  # Token ids of each title, of any lengths
    pad_id: int,  # Token that fills up the shorter ones
) -> torch.LongTensor:  # int64 (n, longest), at least one column wide
    "Put the token ids of several titles into one tensor, padded at the end."
    # at least one column: some tokenizers make no token of an empty title
    padded_ids = torch.full((len(rows), max([1, *map(len, rows)])), pad_id)
    for padded_row, token_ids in zip(padded_ids, rows): padded_row[:len(token_ids)] = torch.tensor(token_ids)
    return padded_ids


def never_empty(
    is_there: torch.Tensor,  # bool (n,k)
) -> torch.Tensor:  # bool (n,k)
    "The mask with its first entry set in rows that have none: an attention over nothing is not a number."
    first = torch.zeros_like(is_there)
    first[:, :1] = ~is_there.any(1, keepdim=True)
    return is_there | first
