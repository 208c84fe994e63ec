"""Which frames stand for a video."""

import itertools


def middle_frames(total: int, wanted: int) -> list[int]:
    """Indices of the middle frame of each of ``wanted`` equal segments of 0..total-1, in order.

    FreeVA's rule (``get_seq_frames``, which Dense Connector has too): borders are rounded, ties to even, and the middle
    of two frames is the earlier one. A video with fewer frames gives as many as it has, so that not all of a short one
    need be among them.
    """
    wanted = min(total, wanted)
    segment = (total - 1) / wanted
    borders = [round(segment * index) for index in range(wanted + 1)]
    return [(start + end) // 2 for start, end in itertools.pairwise(borders)]
