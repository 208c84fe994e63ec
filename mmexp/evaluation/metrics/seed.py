"""SEED-Bench (Li et al. 2023, arXiv 2307.16125): multiple choice by question type."""

from typing import ClassVar

from mmexp.evaluation.metrics import letters
from mmexp.evaluation.metrics.choice import ReadChoice, Reader


class SeedBench(ReadChoice):
    """Values: accuracy (main number) and each question type's. LLaVA and Honeybee score ``multiple_choice: exact``.

    - ``lmms_eval``: the first character of the reply ("Because" is B).
    - ``vlmevalkit``: a letter, or the text of a choice; what cannot be read is wrong.
    """

    variants = ("lmms_eval", "vlmevalkit")
    readers: ClassVar[dict[str, Reader]] = {"lmms_eval": letters.lmms_seed, "vlmevalkit": letters.vlmevalkit}
