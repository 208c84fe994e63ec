"""POPE (Li et al. 2023, arXiv 2305.10355): is an object there? Yes/no questions, three samplings of the negatives.

Checked against lmms-eval 75571cfe (`tasks/pope/utils.py`) and VLMEvalKit e8e78f05 (`dataset/utils/yorn.py`).
"""

from collections.abc import Sequence

import numpy as np

from mmexp.evaluation.metrics.base import HEADLINE, Answers, Metric, ratio, weighted_mean
from mmexp.evaluation.metrics.normalize import without_punctuation

YES, NO = "yes", "no"


def yes_or_no_word(prediction: str) -> str:
    """``yes`` or ``no`` if exactly one of the two is among the words, else ``unknown``."""
    words = without_punctuation(prediction.lower(), "vlmevalkit").split()
    found = [word for word in (YES, NO) if word in words]
    return found[0] if len(found) == 1 else "unknown"


class Pope(Metric):
    """Values: F1 (the main number), ``accuracy``, ``precision``, ``recall``, ``f1``, ``yes_ratio`` and
    ``predicted_yes_ratio`` over all questions; ``<category>`` (its F1) and ``<category>_<value>`` for each category.

    - ``lmms_eval``: the stripped reply must equal yes or no ("Yes." is wrong). An unreadable reply to a "yes" question
      is missing from the recall, and ``yes_ratio`` is that of the labels.
    - ``vlmevalkit``: the word is looked for; an unreadable reply to a "yes" question is a miss. The toolkit has no
      yes ratio; here it is that of the replies.

    A question may belong to several categories, separated by commas; it counts once in each, and in the total too.
    """

    def problem(self, references: Sequence[str], family: str, choices: Sequence[str] = ()) -> str | None:
        if [reference.lower().strip() for reference in references] in ([YES], [NO]):
            return None
        return f"the answer must be 'yes' or 'no', not {' / '.join(references)!r}"

    def extract(self, prediction: str) -> str:
        """What the variant reads in a reply."""
        return prediction.strip().lower() if self.variant == "lmms_eval" else yes_or_no_word(prediction)

    def score(self, prediction: str, references: Sequence[str], family: str = "", choices: Sequence[str] = ()) -> float:
        return float(self.extract(prediction) == references[0].lower().strip())

    def values(self, answers: Answers, weights: np.ndarray) -> dict[str, np.ndarray]:
        said = np.array([self.extract(prediction) for prediction in answers.predictions], dtype=object)
        true = np.array([answer.lower().strip() for answer in answers.answers], dtype=object)
        categories = [[name.strip() for name in family.split(",")] for family in answers.families]
        copies = np.array([len(names) for names in categories])
        out = self._values(said, true, answers.scores, weights * copies)
        out[HEADLINE] = out["f1"]
        for category in dict.fromkeys(name for names in categories for name in names if name):
            inside = np.array([category in names for names in categories])
            part = self._values(said[inside], true[inside], answers.scores[inside], weights[:, inside])
            out[category] = part["f1"]
            out |= {f"{category}_{name}": value for name, value in part.items()}
        return out

    def _values(
        self, said: np.ndarray, true: np.ndarray, scores: np.ndarray, weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        def total(condition: np.ndarray) -> np.ndarray:
            return weights @ condition.astype(float)

        hits = total((true == YES) & (said == YES))
        missed = (said == NO) if self.variant == "lmms_eval" else (said != YES)
        precision = ratio(hits, hits + total((true == NO) & (said == YES)), empty=0.0)
        recall = ratio(hits, hits + total((true == YES) & missed), empty=0.0)
        predicted = ratio(total(said == YES), weights.sum(axis=1), empty=0.0)
        labelled = ratio(total(true == YES), weights.sum(axis=1), empty=0.0)
        values = {
            "accuracy": weighted_mean(scores, weights),
            "precision": precision,
            "recall": recall,
            "f1": ratio(2 * precision * recall, precision + recall, empty=0.0),
            "yes_ratio": labelled if self.variant == "lmms_eval" else predicted,
            "predicted_yes_ratio": predicted,
        }
        return {name: 100 * value for name, value in values.items()}
