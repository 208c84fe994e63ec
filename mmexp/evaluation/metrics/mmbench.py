"""MMBench (Liu et al. 2023, arXiv 2307.06281): all rotations of a question's choices must be right."""

from typing import ClassVar

from mmexp.evaluation.metrics import letters
from mmexp.evaluation.metrics.choice import ReadChoice, Reader


class MmBench(ReadChoice):
    """Values: circular accuracy (main number) and each category's (``family``; both levels separated by a comma).

    - ``lmms_eval``: task ``mmbench_en_dev_static``.
    - ``vlmevalkit``: ``evaluate_heuristic`` with ``exact_matching``: an unreadable reply is wrong.

    Deliberate difference to both: no language model reads what the rules cannot, and no letter is drawn at random.
    """

    variants = ("lmms_eval", "vlmevalkit")
    readers: ClassVar[dict[str, Reader]] = {"lmms_eval": letters.lmms_mmbench, "vlmevalkit": letters.vlmevalkit}

    @property
    def is_circular(self) -> bool:
        return True
