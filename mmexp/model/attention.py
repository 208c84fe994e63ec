"""From segment ids to attention masks: the one rule behind packing, shared prefixes and decoding."""

import torch


def allowed(
    query_segments: torch.Tensor, query_prefixes: torch.Tensor, key_segments: torch.Tensor, query_start: int = 0
) -> torch.Tensor:
    """Which keys each query sees: (B, Tq, Tk) bool.

    A query at index ``query_start + i`` sees key ``k`` where ``k`` is not later and belongs to the query's own segment
    or to its prefix segment. Padding (-1) is seen by nobody but itself, so that no row of a softmax is empty.
    """
    num_queries, num_keys = query_segments.shape[1], key_segments.shape[1]
    places = torch.arange(num_keys, device=key_segments.device)
    query_places = places[query_start : query_start + num_queries]
    causal = places[None, :] <= query_places[:, None]
    key = key_segments[:, None, :]
    same = (query_segments[:, :, None] == key) | (query_prefixes[:, :, None] == key)
    itself = places[None, :] == query_places[:, None]
    return (causal & same & (key >= 0)) | itself


def additive_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(B, Tq, Tk) bool -> (B, 1, Tq, Tk): 0 where seen, the dtype's lowest number elsewhere."""
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask[:, None], zero, torch.finfo(dtype).min)
