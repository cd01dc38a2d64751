"Token ids of several titles as one tensor: what training and matching both feed to a text encoder."
import torch


def pad_token_ids(
    rows: list[list[int]],  # Token ids of each title, of any lengths
    pad_id: int,  # Token that fills up the shorter ones
) -> torch.LongTensor:  # int64 (n, longest), at least one column wide
    "Put the token ids of several titles into one tensor, padded at the end."
    # at least one column: some tokenizers make no token of an empty title
    padded_ids = torch.full((len(rows), max([1, *map(len, rows)])), pad_id)
    for padded_row, token_ids in zip(padded_ids, rows): padded_row[:len(token_ids)] = torch.tensor(token_ids)
    return padded_ids
