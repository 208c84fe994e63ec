"""Small tokenizers of the classes that the supported LLMs use, trained offline on a few sentences."""

import json
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

SENTENCES = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "USER: which shape is red? ASSISTANT: circle",
    "The assistant gives helpful, detailed, and polite answers to the user's questions. yes no 0 1 2 3 12",
    "Answer the question using a single word or phrase. You are a helpful assistant. user system",
    "is there a small blue square left of the large red triangle? The bear's in room 12.",
]
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3_MARKERS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@cache
def llama(legacy: bool) -> LlamaTokenizer:
    """SentencePiece-type BPE with byte fallback; ``legacy`` puts a space before what follows a special token."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="never", split=True)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        [*SENTENCES, *["USER:"] * 9], trainers.BpeTrainer(vocab_size=450, special_tokens=specials, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    # As in Llama's vocabulary, "USER" takes one token more with a space before it.
    merges = [tuple(pair) for pair in model["merges"] if not "".join(pair).startswith("\u2581U")]
    return LlamaTokenizer(vocab=model["vocab"], merges=merges, legacy=legacy)


@cache
def llama3() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose post-processor trims spaces from the offsets, as Llama 3's does."""
    tokenizer = _byte_level(LLAMA3_SPLIT)
    tokenizer.add_special_tokens([AddedToken(marker, normalized=False) for marker in LLAMA3_MARKERS])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )


@cache
def qwen() -> Qwen2Tokenizer:
    model = json.loads(_byte_level(LLAMA3_SPLIT).to_str())["model"]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_MARKERS})
    return tokenizer


def _byte_level(pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=450, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, "a\n\nb"] * 2, trainer)
    return tokenizer
