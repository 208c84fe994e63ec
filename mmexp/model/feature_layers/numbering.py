"""Layer numbers of papers and libraries -> depths of an encoder (taps; 0 is the stem, k the output of block k).

The trap (papers/dense_connector.md, 3.1): Dense Connector counts the stem as layer 1, so that its "final 24th layer"
of a 24-block ViT is ``hidden_states[23]``, the last but one, and block 22 in timm's count.
"""

import itertools
import math
import re
from collections.abc import Sequence
from fractions import Fraction

from mmexp.errors import UserError, nearest

OFFSETS = {"paper": -1, "hf": 0, "block": 1}
"""What is added to a number to make it a depth."""
RELATIVE = "relative"
"""Fractions of the way from the stem to the final layer, so that one choice fits encoders of any depth."""

Number = int | float | str
Group = str | int | Sequence[int]


def tap_of(number: int, numbering: str, depth: int, key: str) -> int:
    """A layer number as a depth. Negative numbers count from the end in every numbering; -1 is the last block.

    Args:
        numbering: ``paper`` (the stem is 1), ``hf`` (index into ``hidden_states``, the stem is 0) or ``block`` (timm's
            blocks from 0; the stem has no number).
        depth: blocks of the encoder.
        key: config key, for the message.

    Raises:
        UserError: the encoder is not that deep.
    """
    _check_numbering(numbering)
    if isinstance(number, bool) or not isinstance(number, int):
        raise UserError(f"{key}: '{number}' must be an integer with numbering={numbering}")
    offset = OFFSETS["hf" if numbering == RELATIVE else numbering]
    tap = number + depth + 1 if number < 0 else number + offset
    lowest = max(-offset, 0)
    if not 0 <= tap <= depth or (number >= 0 and number < lowest):
        raise UserError(
            f"{key}: {number} is beyond this encoder, which has {depth} blocks (numbering={numbering}: "
            f"{lowest} to {depth - offset}, or {-depth - 1} to -1 from the end)"
        )
    return tap


def final_tap(final: int, numbering: str, depth: int) -> int:
    """Depth of the final layer; with ``relative`` numbers only a negative ``final`` says where the range ends."""
    if numbering == RELATIVE and not (isinstance(final, int) and final < 0):
        raise UserError(f"feature_layers.final: {final} must count from the end with numbering=relative: -1, -2, ...")
    return tap_of(final, numbering, depth, "feature_layers.final")


def layer_taps(layers: Sequence[Number], numbering: str, final: int, depth: int) -> tuple[int, ...]:
    """Depths of the layers that join the final one, in the order of the config.

    Args:
        layers: layer numbers; with ``relative`` shares like ``1/3``. A share f is the paper's layer round(f * L), where
            L is the paper's number of the final layer: 1/3 and 2/3 are the published 8 and 16 of 24.
        final: depth of the final layer.

    Raises:
        UserError: no layers, one beyond the encoder, one twice, the final one.
    """
    key = "feature_layers.layers"
    require_depth(depth)
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise UserError(
            f"{key}: '{layers}' is not a list of layers; the final layer alone is feature_layers=penultimate"
        )
    if numbering == RELATIVE:
        taps = tuple(_share_tap(share, final, key) for share in layers)
    else:
        taps = tuple(tap_of(layer, numbering, depth, key) for layer in layers)  # type: ignore[arg-type]
    for index, (layer, tap) in enumerate(zip(layers, taps, strict=True)):
        if tap == final:
            raise UserError(
                f"{key}: {layer} is the final layer of this encoder of {depth} blocks, which is always included"
            )
        if tap in taps[:index]:
            earlier = layers[taps.index(tap)]
            raise UserError(f"{key}: {earlier} and {layer} are the same layer in this encoder of {depth} blocks")
    return taps


def group_taps(groups: int | Sequence[Group], numbering: str, final: int, depth: int) -> list[tuple[int, ...]]:
    """Groups of depths.

    Args:
        groups: how many equal groups from the stem to the final layer (sizes differ by at most one, earlier ones are
            larger); or a list of ranges like ``1-12`` (both ends included), lists of layers, or single layers.
        final: depth of the final layer.

    Raises:
        UserError: an empty group, a layer in two groups, one beyond the encoder.
    """
    key = "feature_layers.groups"
    require_depth(depth)
    if isinstance(groups, int):
        return _equal_groups(groups, final + 1, key)
    if isinstance(groups, str) or not isinstance(groups, Sequence) or not groups:
        raise UserError(f"{key}: '{groups}' has no groups; write how many there are, or a list like [1-12,13-24]")
    if numbering == RELATIVE:
        raise UserError(f"{key}: numbering=relative needs a number of equal groups; ranges need paper, hf or block")
    taps = [tuple(tap_of(number, numbering, depth, key) for number in _members(group, key)) for group in groups]
    seen: set[int] = set()
    for group, members in zip(groups, taps, strict=True):
        if len(set(members)) < len(members) or seen & set(members):
            raise UserError(f"{key}: '{group}' has a layer that is in a group already; groups must not overlap")
        seen.update(members)
    return taps


def require_depth(depth: int) -> None:
    """Raises ``UserError`` for an encoder whose only map is its output."""
    if depth < 2:
        raise UserError("feature_layers: this encoder has no intermediate maps to choose from; use feature_layers=last")


def _check_numbering(numbering: str) -> None:
    if numbering not in (*OFFSETS, RELATIVE):
        raise UserError(f"feature_layers.numbering: unknown '{numbering}'; {nearest(numbering, (*OFFSETS, RELATIVE))}")


def _share_tap(share: Number, final: int, key: str) -> int:
    try:
        value = Fraction(str(share))
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{key}: '{share}' is not a fraction of the depth like 1/3 or 0.5") from None
    if not 0 < value <= 1:
        raise UserError(
            f"{key}: {share} is not a fraction of the depth; with numbering=relative it must be above 0 and at most 1"
        )
    return max(math.floor(value * (final + 1) + Fraction(1, 2)), 1) - 1


def _equal_groups(count: int, num_layers: int, key: str) -> list[tuple[int, ...]]:
    if not 1 <= count <= num_layers:
        raise UserError(f"{key}: {count} must be from 1 to {num_layers}, the layers from the stem to the final one")
    size, larger = divmod(num_layers, count)
    starts = [index * size + min(index, larger) for index in range(count + 1)]
    return [tuple(range(start, end)) for start, end in itertools.pairwise(starts)]


def _members(group: Group, key: str) -> Sequence[int]:
    members: Sequence[int]
    if isinstance(group, str):
        ends = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", group)
        if ends is None:
            raise UserError(f"{key}: '{group}' is not a range of layers like 1-12")
        members = range(int(ends[1]), int(ends[2]) + 1)
    else:
        members = [group] if isinstance(group, int) else group
    if not members:
        raise UserError(f"{key}: the group '{group}' is empty; each needs at least one layer")
    return members
