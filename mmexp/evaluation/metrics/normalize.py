"""Answer normalisation of the VQA challenge, as the two toolkits apply it.

Rules: VQA evaluation (Antol et al. 2015). Checked against lmms-eval 75571cfe (`_task_utils/vqa_eval_metric.py`) and
VLMEvalKit e8e78f05 (`smp/misc.py`, `dataset/utils/vqa_eval.py`). The two differ in which full stops and which runs of
commas they see; both stop after 32 full stops, because a flag of the original sits where `re.sub` takes its count.
"""

import re
import string
from functools import cache

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
MAX_FULL_STOPS = 32
SEPARATORS = ';/[]"{}()=+\\_-><@`,?!'
FULL_STOP = {"lmms_eval": re.compile(r"\.(?!\d)"), "vlmevalkit": re.compile(r"(?<!\d)\.(?!\d)")}
COMMA_IN_NUMBER = {"lmms_eval": re.compile(r"(?<=\d),+(?=\d)"), "vlmevalkit": re.compile(r"\d,\d")}
TO_SPACES = str.maketrans("\n\t", "  ")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've "
    "why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're "
    "you've"
).split()


@cache
def contractions() -> dict[str, str]:
    """Misspelt -> right: a contraction that lacks one of its apostrophes gets it back."""
    table = {
        word[:place] + word[place + 1 :]: word
        for word in CONTRACTED
        for place, letter in enumerate(word)
        if letter == "'"
    }
    # The one entry of the official table that goes the other way.
    return table | {"somebody'd": "somebodyd"}


def without_punctuation(text: str, variant: str) -> str:
    """Each separator goes if it touches a space anywhere or the text has a number like 1,000; else it is a space."""
    has_number = COMMA_IN_NUMBER[variant].search(text) is not None
    out = text
    for mark in SEPARATORS:
        touches_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if has_number or touches_space else " ")
    return FULL_STOP[variant].sub("", out, count=MAX_FULL_STOPS)


def without_articles(text: str) -> str:
    """Lower case; number words to digits, articles dropped, contractions repaired, single spaces."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(contractions().get(word, word) for word in words if word not in ARTICLES)


def normalize_vqa(text: str, variant: str) -> str:
    """An answer as VQA accuracy compares it."""
    return without_articles(without_punctuation(text.translate(TO_SPACES).strip(), variant))


def split_possessives(text: str) -> str:
    """lmms-eval's step before TextVQA and VizWiz answers: lower case, no ``,`` and ``?``, ``'s`` on its own."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def plain(text: str) -> str:
    """Lower case without ASCII punctuation, single spaces, nothing at the ends."""
    return " ".join(text.lower().translate(NO_PUNCTUATION).split())
