"""The lab's tokenizer: one token per word of the world and digit, and one per fixed phrase of the templates.

A system prompt or a format prompt costs one token here, so that a template is cheap at scale lab; its text is
the same as at scale paper, and so is the code that renders, tokenises and masks it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmexp.data.choices import LETTERS
from mmexp.data.template import FORMAT_PROMPTS, Template
from mmexp.lab.questions import NUM_CHOICES, words
from mmexp.lab.world import WorldSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
MARKERS = (
    "USER:",
    "ASSISTANT:",
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    "<|im_end|>",
    "\n",
    *(f"\n{letter}." for letter in LETTERS[:NUM_CHOICES]),
)
"""Role and end markers of all templates, and how lines of choices begin; openings and format prompts are taken from the
templates themselves."""
OTHER_WORDS = ("image",)


def phrases(templates: Iterable[Template]) -> list[str]:
    """Fixed texts that become one token each, in the order of their ids: markers, openings, format prompts."""
    found = list(MARKERS)
    for template in templates:
        if template.system is not None:
            found.append(template.opening.replace("{system}", template.system).strip(" "))
        if template.format_prompt in FORMAT_PROMPTS[:2]:
            found += template.format_texts.values()
            found += [f"\n{text}" for text in template.format_texts.values()]
    return list(dict.fromkeys(found))


def build_tokenizer(spec: WorldSpec, templates: Iterable[Template]) -> "PreTrainedTokenizerFast":
    """WordPiece of the world's language with bos ``<s>``, eos ``</s>``, unk and pad; 47 is ``4 ##7``."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([*SPECIALS, *sorted({*words(spec), *OTHER_WORDS})])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=100))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    # Joins with spaces, none before "?", "," and ".", and none inside brackets.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=True),
            decoders.Fuse(),
            decoders.Replace("[ ", "["),
            decoders.Replace(" ]", "]"),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases(templates)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
