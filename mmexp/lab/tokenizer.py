"""The lab's tokenizer: one token per word of the world, and one per fixed phrase of the conversation templates.

A system prompt or a format prompt costs one token here, so that a template is cheap at scale lab; its text is
the same as at scale paper, and so is the code that renders, tokenises and masks it.
"""

from typing import TYPE_CHECKING

from mmexp.lab.questions import words
from mmexp.lab.world import WorldSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
PHRASES = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER:",
    "ASSISTANT:",
    "You are a helpful assistant.",
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.",
    "<|begin_of_text|>",
    "<|start_header_id|>system<|end_header_id|>\n\n",
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    "<|im_start|>system\n",
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    "<|im_end|>",
    "\n",
    "\nAnswer the question using a single word or phrase.",
    "Answer the question using a single word or phrase.",
)
"""In the order of their ids. Templates: papers/llava15.md section 6 and the public chat formats of Llama 3 and Qwen."""
OTHER_WORDS = ("describe", "the", "image", ".")


def build_tokenizer(spec: WorldSpec) -> "PreTrainedTokenizerFast":
    """Word-level tokenizer of the world's language with bos ``<s>``, eos ``</s>``, unk and pad."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([*SPECIALS, *sorted({*words(spec), *OTHER_WORDS})])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # joins with spaces, none before "?" and ","
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
