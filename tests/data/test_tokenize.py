"""Ids and label masks, against the whole text's own tokenisation and an independent restatement of LLaVA's rule."""

from pathlib import Path

import numpy as np
import pytest

from mmexp.data.bad_samples import BadSample
from mmexp.data.tokenize import ConversationTokenizer
from mmexp.errors import UserError
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, TokenizedSample
from tests.data import tokenizers
from tests.data.making import NUM_VISUAL, template, turns

WORD = "Answer the question using a single word or phrase."
DIALOGUES = [
    [("which shape is red?", "circle")],
    [("which shape is red?", "The circle."), ("is there a bear?", "yes"), ("how many?", "3")],
    [("caf\u00e9 \u2013 \U0001f43b?", "caf\u00e9 \U0001f43b"), ("why?", "line one\nline two \u4f60")],
    [("is  there   space?", "two  spaces"), (f"red?\n{WORD}", "12")],
    [("q", "'s odd"), ("", "an answer to nothing")],
]
PAIRS = [
    ("vicuna_v1", lambda: tokenizers.llama(legacy=True)),
    ("vicuna_v1", lambda: tokenizers.llama(legacy=False)),
    ("plain", lambda: tokenizers.llama(legacy=True)),
    ("plain", tokenizers.llama3),
    ("llama3", tokenizers.llama3),
    ("chatml", tokenizers.qwen),
    ("qwen", tokenizers.qwen),
]
IDS = ["vicuna-legacy", "vicuna", "plain-llama", "plain-llama3", "llama3", "chatml", "qwen"]


def tokenizer_for(name, hf, max_length=1000, **changes) -> ConversationTokenizer:
    return ConversationTokenizer(
        tokenizer=hf,
        template=template(name, **changes),
        num_visual_tokens=lambda size: NUM_VISUAL,
        max_length=max_length,
    )


def tokenized(name, hf, pairs, image=True) -> TokenizedSample:
    tokenizer = tokenizer_for(name, hf)
    path, size = (Path("x.png"), (8, 8)) if image else (None, None)
    return tokenizer.conversation(turns(*pairs), path, size, "d", "f:1")


def whole_text_ids(name, hf, pairs, image) -> list[int]:
    """The rendered text split at the marker, each part tokenised by itself, as LLaVA's tokenizer_image_token does."""
    chosen = template(name)
    text = "".join(piece.text for piece in chosen.render(turns(*pairs), image))
    ids = [hf.bos_token_id] if chosen.bos and hf.bos_token_id is not None else []
    for number, part in enumerate(text.split("<image>")):
        ids += [IMAGE_TOKEN_ID] * NUM_VISUAL if number else []
        ids += hf(part, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("image", [True, False], ids=["image", "text"])
@pytest.mark.parametrize("pairs", DIALOGUES, ids=range(len(DIALOGUES)))
@pytest.mark.parametrize(("name", "hf"), PAIRS, ids=IDS)
def test_ids_are_those_of_the_whole_text(name, hf, pairs, image):
    sample = tokenized(name, hf(), pairs, image)
    assert sample.input_ids.tolist() == whole_text_ids(name, hf(), pairs, image)
    assert sample.input_ids.dtype == sample.labels.dtype == np.int64


@pytest.mark.parametrize("image", [True, False], ids=["image", "text"])
@pytest.mark.parametrize("pairs", DIALOGUES, ids=range(len(DIALOGUES)))
@pytest.mark.parametrize(("name", "hf"), PAIRS, ids=IDS)
def test_trained_tokens_decode_to_the_answers(name, hf, pairs, image):
    sample = tokenized(name, hf(), pairs, image)
    trained = sample.labels != IGNORE_INDEX
    np.testing.assert_array_equal(sample.labels[trained], sample.input_ids[trained])
    stops = sample.labels[trained].tolist().count(tokenizer_for(name, hf()).stop_ids[0])
    decoded = hf().decode(sample.labels[trained].tolist(), clean_up_tokenization_spaces=False)
    stop = template(name).stop
    if name == "plain":
        first_is_untrained = not image and not hf().bos_token_id
        assert not first_is_untrained
        assert decoded.strip() == "\n".join(answer for _, answer in pairs)
    else:
        assert stops == len(pairs)
        assert [part.strip() for part in decoded.split(stop)] == [*(answer for _, answer in pairs), ""]


def reference_v1(hf, text: str, legacy: bool) -> tuple[list[int], list[int]]:
    """LLaVA's rule for conversation version v1, restated from papers/llava15.md section 6, one id per image."""

    def ids_of(part: str) -> list[int]:
        ids = [hf.bos_token_id]
        for number, chunk in enumerate(part.split("<image>")):
            ids += ([IMAGE_TOKEN_ID] if number else []) + hf(chunk, add_special_tokens=False)["input_ids"]
        return ids

    ids = ids_of(text)
    labels = list(ids)
    labels[0] = IGNORE_INDEX
    at = 1
    for number, part in enumerate(text.split("</s>")):
        if not part:
            break
        instruction = part.split(" ASSISTANT: ")[0] + " ASSISTANT: "
        newer = 0 if legacy or number == 0 else 1
        length, masked = len(ids_of(part)) - newer, len(ids_of(instruction)) - 2 - newer
        labels[at : at + masked] = [IGNORE_INDEX] * masked
        at += length
    assert at == len(ids), "the official code would mask this sample"
    return ids, labels


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "new"])
@pytest.mark.parametrize("image", [True, False], ids=["image", "text"])
@pytest.mark.parametrize("pairs", DIALOGUES[:4], ids=range(4))
def test_vicuna_mask_is_the_official_one(legacy, image, pairs):
    hf = tokenizers.llama(legacy=legacy)
    text = "".join(piece.text for piece in template("vicuna_v1").render(turns(*pairs), image))
    ids, labels = reference_v1(hf, text, legacy)
    sample = tokenized("vicuna_v1", hf, pairs, image)
    once = sample.input_ids != IMAGE_TOKEN_ID
    once[np.flatnonzero(~once)[:1]] = True
    assert sample.input_ids[once].tolist() == ids
    expected = [
        IGNORE_INDEX if identity == IMAGE_TOKEN_ID else label for identity, label in zip(ids, labels, strict=True)
    ]
    assert sample.labels[once].tolist() == expected


def test_plain_masks_only_bos_and_image():
    sample = tokenized("plain", tokenizers.llama(legacy=True), [("Describe.", "a red circle")])
    assert sample.labels[: 1 + NUM_VISUAL].tolist() == [IGNORE_INDEX] * (1 + NUM_VISUAL)
    assert (sample.labels[1 + NUM_VISUAL :] != IGNORE_INDEX).all()


@pytest.mark.parametrize(("name", "hf"), PAIRS, ids=IDS)
def test_prefix_is_everything_up_to_the_image(name, hf):
    one, other = (tokenized(name, hf(), [pair]) for pair in DIALOGUES[1][:2])
    assert one.prefix_length == other.prefix_length > 0
    np.testing.assert_array_equal(one.input_ids[: one.prefix_length], other.input_ids[: one.prefix_length])
    assert (one.input_ids == IMAGE_TOKEN_ID).sum() == one.num_visual_tokens == NUM_VISUAL
    assert one.input_ids[one.prefix_length - 1] == IMAGE_TOKEN_ID
    assert one.input_ids[one.prefix_length] != IMAGE_TOKEN_ID
    assert tokenized(name, hf(), [DIALOGUES[0][0]], image=False).prefix_length == 0


@pytest.mark.parametrize("image", [True, False], ids=["image", "text"])
@pytest.mark.parametrize("pairs", DIALOGUES, ids=range(len(DIALOGUES)))
@pytest.mark.parametrize(("name", "hf"), PAIRS, ids=IDS)
def test_generation_begins_where_training_does(name, hf, pairs, image):
    """The prompt's ids are the masked beginning of the training ids."""
    tokenizer = tokenizer_for(name, hf())
    path, size = (Path("x.png"), (8, 8)) if image else (None, None)
    prompt = tokenizer.prompt(turns(pairs[0])[0], path, tokenizer.num_visual_tokens(size) if size else 0, "d", "f:1")
    sample = tokenizer.conversation(turns(pairs[0]), path, size, "d", "f:1")
    first = int(np.flatnonzero(sample.labels != IGNORE_INDEX)[0])
    if name == "plain" and not image:
        first = len(prompt.input_ids)  # nothing predicts the first token of a caption without BOS
    assert prompt.input_ids.tolist() == sample.input_ids[:first].tolist()
    assert (prompt.labels == IGNORE_INDEX).all()


def test_first_position_is_never_trained():
    sample = tokenized("plain", tokenizers.qwen(), [("", "a circle")], image=False)
    assert sample.labels[0] == IGNORE_INDEX
    assert (sample.labels[1:] != IGNORE_INDEX).all()


@pytest.mark.parametrize("name", ["chatml", "qwen"])
def test_a_token_across_the_border_is_an_error_with_its_line(name):
    with pytest.raises(BadSample, match=r"^f:1: tokenization mismatch.*'\\n\\n'"):
        tokenized(name, tokenizers.qwen(), [("q", "\nanswer")])


def test_trimmed_offsets_do_not_hide_a_token_across_the_border():
    changed = {"user": "USER: {image}{question} AI: ", "answer": "{answer}<|eot_id|>", "stop": "<|eot_id|>"}
    tokenizer = tokenizer_for("vicuna_v1", tokenizers.llama3(), **changed)
    with pytest.raises(BadSample, match="tokenization mismatch"):
        tokenizer.conversation(turns(("q", "circle")), None, None, "d", "f:1")


def test_too_long_says_how_long():
    tokenizer = tokenizer_for("vicuna_v1", tokenizers.llama(legacy=True), max_length=30)
    with pytest.raises(BadSample, match=r"f:7: \d+ tokens \(4 visual, \d+ text\).*batching.max_length 30"):
        tokenizer.conversation(turns(*DIALOGUES[1]), Path("x.png"), (8, 8), "d", "f:7")


def test_context_too_short_for_the_image_is_no_bad_sample():
    tokenizer = tokenizer_for("plain", tokenizers.llama(legacy=True), max_length=NUM_VISUAL)
    with pytest.raises(UserError, match=r"batching\.max_length: 4 positions") as raised:
        tokenizer.conversation(turns(("q", "a")), Path("x.png"), (8, 8), "d", "f:1")
    assert not isinstance(raised.value, BadSample)


def test_rendering_errors_name_the_line():
    with pytest.raises(BadSample, match=r"^f:1: the text contains '</s>'"):
        tokenized("vicuna_v1", tokenizers.llama(legacy=True), [("q", "a</s>")])


def test_stop_ids():
    assert tokenizer_for("vicuna_v1", tokenizers.llama(legacy=True)).stop_ids == [2]
    assert tokenizer_for("plain", tokenizers.llama(legacy=True)).stop_ids == [
        tokenizers.llama(legacy=True).convert_tokens_to_ids("<0x0A>")
    ]
    hf = tokenizers.qwen()
    assert tokenizer_for("qwen", hf).stop_ids == [hf.convert_tokens_to_ids("<|im_end|>")]


def test_a_template_of_another_model_is_refused():
    with pytest.raises(UserError, match=r"template\.stop: '</s>'"):
        tokenizer_for("vicuna_v1", tokenizers.qwen())


@pytest.mark.parametrize("name", ["vicuna_v1", "plain", "llama3", "chatml", "qwen"])
def test_lab_tokenizer(name):
    from mmexp.lab.tokenizer import build_tokenizer
    from tests.lab.making import spec

    hf = build_tokenizer(spec(), [template(name)])
    sample = tokenized(name, hf, [("which shape is red?", "circle"), ("is there a red circle?", "yes")])
    trained = hf.convert_ids_to_tokens(sample.labels[sample.labels != IGNORE_INDEX].tolist())
    stop = template(name).stop
    assert trained == ["circle", stop, "yes", stop]
    assert hf.unk_token_id not in sample.input_ids
