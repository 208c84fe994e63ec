"""Which option a free reply means: the letter-reading rules of the toolkits and of LLaVA, none of which agree.

Checked against lmms-eval 75571cfe (`tasks/mmbench/mmbench_evals.py`, `tasks/_task_utils/mcq_extract.py`,
`tasks/{seedbench,scienceqa}/utils.py`), VLMEvalKit e8e78f05 (`utils/matching_util.py`) and LLaVA
(`llava/eval/eval_science_qa.py`). Each reader takes the reply and the texts of the choices, and returns a letter, which
need not be one of the choices' (then it is wrong), or None.
"""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NO_OPTION = "Z"
FAILED = "Failed to obtain answer via API"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
MARKS_TO_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
ANSWER_IS = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")
DECORATIONS = (
    ("", "."),
    ("", ","),
    ("", ":"),
    ("", ")"),
    ("", ")."),
    ("(", ")"),
    ("(", ")."),
    (":", ""),
    (":", ","),
    (":", "."),
    (":", ")"),
    (":", ")."),
)
LLAVA_ANSWER = re.compile(r"The answer is ([A-Z]).")

ANSWER_PHRASES = (
    *(f"{start} is" for start in ("the answer", "answer", "the correct answer", "correct answer", "the best answer")),
    *(f"{start} is" for start in ("best answer", "the correct option", "correct option", "the best option")),
    *(f"{start} is" for start in ("best option", "the choice", "choice", "the correct choice", "correct choice")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
ENDS_STRIPPED = ",.!?;:'\""


def text_of_choice(reply: str, choices: Sequence[str]) -> str | None:
    """The only choice whose text stands in the reply, case apart."""
    found = [letter for letter, text in zip(LETTERS, choices, strict=False) if text.lower() in reply.lower()]
    return found[0] if len(found) == 1 else None


def vlmevalkit(reply: str, choices: Sequence[str]) -> str | None:
    """VLMEvalKit's ``can_infer``: a letter among the last words, "answer is X", or the text of a choice."""
    letter = _vlmevalkit_letter(reply, LETTERS[: len(choices)])
    if letter or len(reply) > 2 * sum(len(text) for text in choices):
        return letter
    return text_of_choice(reply, choices)


def _vlmevalkit_letter(reply: str, letters: str) -> str | None:
    if FAILED in reply:
        return None
    if any(refusal in reply for refusal in REFUSALS):
        return NO_OPTION
    words = reply.translate(MARKS_TO_SPACES).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return found[0]
    if not found and NO_OPTION in words:
        return NO_OPTION
    said = ANSWER_IS.search(reply)
    return said[1].upper() if said and said[1].upper() in letters else None


def lmms_mmbench(reply: str, choices: Sequence[str]) -> str | None:
    """lmms-eval's MMBench without a judge (``mmbench_en_dev_static``): at most the choices A to D are known to it."""
    choices = choices[:4]
    return _lmms_letter(reply) or text_of_choice(reply, choices) or _lmms_ranked(reply, LETTERS[: len(choices)])


def _lmms_letter(reply: str) -> str | None:
    """A to E as a word of its own, or as the only one with some decoration; an A among more than three words is not."""
    if FAILED in reply:
        return None
    words, letters = reply.split(), LETTERS[:5]
    bare = [letter for letter in letters if letter in words]
    if len(bare) == 1 and not ("A" in words and len(words) > 3):
        return bare[0]
    for before, after in DECORATIONS:
        found = [letter for letter in letters if f"{before}{letter}{after}" in words]
        if len(found) == 1:
            return found[0]
    return None


def _lmms_ranked(reply: str, letters: str) -> str | None:
    """lmms-eval's ``extract_mcq_answer``: all places where a letter stands in one of several forms, the surest form
    first, within a form the last place, of one place the first letter."""
    text = reply.strip()
    for mark in ENDS_STRIPPED:
        text = text.strip(mark)
    text = f" {text} "
    inner = text.strip()
    places: list[tuple[int, int, str]] = []  # rank, position, letter
    for rank, form in ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} ")):
        places += [(rank, text.rfind(form.format(letter)), letter) for letter in letters if form.format(letter) in text]
    for phrase in ANSWER_PHRASES:
        start = text.lower().find(phrase)
        if start >= 0:
            places += [(7, text.find(letter, start + len(phrase)), letter) for letter in letters]
    for letter in letters:
        if inner.startswith(letter) and (len(inner) == 1 or not inner[1].isalpha()):
            places.append((10, 0, letter))
        if inner.endswith(letter) and (len(inner) == 1 or not inner[-2].isalpha()):
            places.append((9, len(text) - 1, letter))
    places = [place for place in places if place[1] >= 0]
    if not places:
        places = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(places, key=lambda place: place[:2])[2] if places else None


def lmms_seed(reply: str, choices: Sequence[str]) -> str | None:
    """lmms-eval's SEED-Bench: the first character of the stripped reply, case apart."""
    return reply.strip()[:1].upper() or None


def lmms_scienceqa(reply: str, choices: Sequence[str]) -> str | None:
    """lmms-eval's ScienceQA: the letter alone, case apart, or a capital and a full stop at the start."""
    text = reply.strip()
    if len(text) >= 2 and text[0].isupper() and text[1] == ".":
        return text[0]
    return text.upper() if len(text) == 1 else None


def llava_scienceqa(reply: str, choices: Sequence[str]) -> str | None:
    """LLaVA's ScienceQA: A to E alone, "X. " at the start, or "The answer is X." once."""
    if len(reply) == 1 and reply in LETTERS[:5]:
        return reply
    if len(reply) >= 3 and reply[0] in LETTERS[:5] and reply[1:3] == ". ":
        return reply[0]
    found = LLAVA_ANSWER.findall(reply)
    return found[0] if len(found) == 1 else None


def exact(reply: str, choices: Sequence[str]) -> str | None:
    """The letter and nothing else, case apart."""
    text = reply.strip().upper()
    return text if len(text) == 1 else None


def sole(reply: str, choices: Sequence[str]) -> str | None:
    """The only capital letter that stands alone among the reply's words; an ``A`` in a sentence is an article."""
    words = re.findall(r"[^\s.,:;!?()\[\]'\"]+", reply)
    letters = [word for word in words if len(word) == 1 and word in LETTERS]
    if letters == ["A"] and len(words) > 3:
        return None
    return letters[0] if len(letters) == 1 else None
