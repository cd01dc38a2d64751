"Token ids of titles: how many there may be, and those of several titles as one tensor for a text encoder."
import torch

PART_ROWS = 16  # titles of a part of a batch, see `parts_of_like_length`
WORTHWHILE = .85  # a batch is read in parts where that leaves at most this share of its tokens


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


def parts_of_like_length(
    is_token: torch.Tensor,  # bool (n,l), False at the padding
) -> tuple:  # Rows from short to long, int64 (n,); [(slice of these rows, how many columns they need)]
    """Parts of a batch in which titles are about equally long: read together, each is padded to the longest
    of all. One part of all rows where little would be saved.

    Columns are left out behind the last token alone: encoders count positions from the first column, padding
    in front included.
    """
    n_rows, width = is_token.shape
    lengths = (is_token * torch.arange(1, width + 1)).amax(1).clamp(min=1)
    order = lengths.argsort(stable=True)
    sorted_lengths = lengths[order].tolist()
    # the last row of a part is its longest
    parts = [(slice(start, start + PART_ROWS), sorted_lengths[min(start + PART_ROWS, n_rows) - 1])
             for start in range(0, n_rows, PART_ROWS)]
    n_left = sum(len(sorted_lengths[rows]) * n_columns for rows, n_columns in parts)
    return order, parts if n_left <= WORTHWHILE * n_rows * width else [(slice(None), width)]
