"""The lab's language models: small Llamas trained to look things up in symbolic scenes.

A language model that was not trained to look things up does not learn it in the few hundred steps of a lab run.
Decisive here, each found by leaving it out: word embeddings of unit size (soft tokens are told apart from the first
step), captions in random order at the beginning (the shortest way to "find the token with this word"), and empty tokens
that show their cell only later.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from mmexp.data.template import Template
from mmexp.errors import UserError
from mmexp.files import replacing, write_json
from mmexp.instantiate import instantiate
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID
from mmexp.lab.fixed_steps import Budget, train_fixed_steps
from mmexp.lab.language_data import Style, SymbolicBatch, SymbolicData, trained_stretches
from mmexp.lab.rng import Rng
from mmexp.lab.symbols import Corruption, soft_tokens
from mmexp.lab.tokenizer import build_tokenizer
from mmexp.lab.world import WorldSpec
from mmexp.model.attention import additive_mask, allowed

LOOKUP_FILE = "lookup.json"
SHARES = 100
COMMON, FASTEST = 3.0, 3
"""Of the head that looks back: value of the channel that all words share, and rotary pairs that it uses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curriculum:
    """What the batches of all rounds have in common; the node ``curriculum``.

    Args:
        batch_size: scenes per step.
        max_objects: scenes have up to so many, more than in the images: more to confuse.
        multi_turn_percent: share of multi-turn steps.
        templates: names; each step picks one (repeat a name to have it more often).
        format_prompts: places of the response-format prompt; each step picks one.
        corruption: see ``Corruption``: the full amounts.
        end_weight: weight of the end-of-answer tokens in the loss; they are half of all and soon learned.
    """

    batch_size: int
    max_objects: int
    multi_turn_percent: int
    templates: tuple[str, ...]
    format_prompts: tuple[str, ...]
    corruption: Mapping[str, float]
    end_weight: float

    def style(self, part: "Round", rng: Rng) -> Style:
        share = rng.below(SHARES)
        return Style(
            template=rng.pick(self.templates),
            format_prompt=rng.pick(self.format_prompts),
            multi_turn=part.caption_percent <= share < part.caption_percent + self.multi_turn_percent,
            caption=share < part.caption_percent,
            grid=rng.pick(part.grids),
        )

    def corruption_at(self, part: "Round", step: int) -> Corruption:
        """From ideal tokens to the full corruption over the round; gains shrink geometrically."""
        amount = min(1.0, (step + 1) / max(1, part.corrupt_over))
        full = dict(self.corruption)
        gain = full.pop("min_gain") ** amount
        named = {name: amount * value for name, value in full.items()}
        return Corruption(percent=part.corrupt_percent, min_gain=gain, **named)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A stretch of the training with an optimiser of its own; an entry of the node ``rounds``.

    Args:
        questions: family -> questions per scene.
        caption_percent: share of caption steps.
        grids: tokens per side of the symbolic image; each step picks one.
        corrupt_percent: share of the scenes that are corrupted.
        corrupt_over: steps over which the corruption grows to its full amounts.
        budget: see ``Budget``.
    """

    questions: Mapping[str, int]
    caption_percent: int
    grids: tuple[int, ...]
    corrupt_percent: float
    corrupt_over: int
    budget: Budget


class LanguageModelStage:
    """Makes a transformers checkpoint folder: config, safetensors, tokenizer; and ``lookup.json`` (accuracies).

    Args:
        world: node ``lab.world``.
        architecture: arguments of ``LlamaConfig`` apart from vocabulary and special tokens.
        templates: name -> template node; ``plain`` is needed, their fixed texts become tokens.
        curriculum: see ``Curriculum``.
        look_back: how much higher, in logits, the first head of the first block sees the token before than the one it
            stands on, when training begins. A text among choices is found by its word and answered by the letter
            before it, which forms sooner with such a head (practice with choices alone, loss after 450 steps: 0.71
            against 0.88 without; one run each). After Olsson et al. 2022, arXiv:2209.11895: induction forms earlier
            where keys hold the token before. 0 begins like any other head.
        rounds: one after the other, see ``Round``. What needs several look-ups forms in ideal tokens.
        check: ``{scenes}``: held-out symbolic scenes per style that ``lookup.json`` is measured on.
        seed: of everything.
        num_threads: of torch.
    """

    VERSION = 3

    def __init__(
        self,
        *,
        world: Mapping[str, int],
        architecture: Mapping[str, Any],
        templates: Mapping[str, Any],
        curriculum: Mapping[str, Any],
        look_back: float,
        rounds: Sequence[Mapping[str, Any]],
        check: Mapping[str, int],
        seed: int,
        num_threads: int,
    ) -> None:
        self.spec = WorldSpec.from_config(world)
        self.templates = {
            name: instantiate(node, f"templates.{name}", expect=Template) for name, node in templates.items()
        }
        self.curriculum = Curriculum(**curriculum)
        self.rounds = [Round(**{**part, "budget": Budget(**part["budget"])}) for part in rounds]
        self.architecture, self.check = dict(architecture), dict(check)
        self.look_back, self.seed, self.num_threads = look_back, seed, num_threads
        for name in ("plain", *self.curriculum.templates):
            if name not in self.templates:
                raise UserError(f"lab language model: curriculum.templates: '{name}' is not among its templates")

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Train, measure, save into ``workdir``."""
        torch.set_num_threads(self.num_threads)
        tokenizer = build_tokenizer(self.spec, self.templates.values())
        model = self._model(tokenizer)
        loss = self._train(workdir, runtime, model, tokenizer)
        self._save(workdir, model, tokenizer, loss)

    def _train(self, workdir: Path, runtime: Mapping[str, Any], model: Any, tokenizer: Any) -> float:
        """All rounds; one that a killed run finished is loaded. Returns the last step's loss."""
        from safetensors.torch import load_file, save_file

        pretraining = self.spec.with_objects(self.spec.min_objects, self.curriculum.max_objects)
        title, done, losses = str(runtime.get("title", "language model")), 0, [float("nan")]
        for number, part in enumerate(self.rounds):
            folder, finished = workdir / f"round_{number}", workdir / f"round_{number}.safetensors"
            if finished.is_file():
                model.load_state_dict(load_file(finished), strict=False)  # the tied head is not in the file
            else:
                folder.mkdir(exist_ok=True)
                data = SymbolicData(pretraining, tokenizer, self.templates, part.questions)
                step_loss = partial(self._loss, model, data, part, done)
                losses = train_fixed_steps(title, model, step_loss, part.budget, folder, runtime)
                with replacing(finished) as temporary:
                    save_file(trained_tensors(model), temporary)
            done += part.budget.steps
        return losses[-1]

    def _model(self, tokenizer: Any) -> Any:
        import transformers

        classes: Any = transformers  # its types know neither attn_implementation nor what embeddings are
        config = classes.LlamaConfig(
            **self.architecture,
            vocab_size=len(tokenizer),
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            attn_implementation="sdpa",
        )
        torch.manual_seed(self.seed)
        model = classes.LlamaForCausalLM(config)
        with torch.no_grad():
            # Unit embeddings keep words apart; the small final norm keeps the tied head's first logits small.
            model.get_input_embeddings().weight.normal_(0, 1)
            model.model.norm.weight.fill_(config.hidden_size**-0.5)
            if self.look_back:
                look_at_the_token_before(model, self.look_back)
        return model

    def _loss(self, model: Any, data: SymbolicData, part: Round, done: int, step: int) -> torch.Tensor:
        rng = Rng(self.seed, 31, done + step)
        style = self.curriculum.style(part, rng)
        batch = data.batch(rng, self.curriculum.batch_size, style, held_out=False)
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + done + step)
        corruption = self.curriculum.corruption_at(part, step) if part.corrupt_percent else None
        logits, targets, _ = answers(model, batch, corruption, random)
        losses = functional.cross_entropy(logits, targets, reduction="none")
        ends = torch.tensor(
            [data.word_ids[name] for name in ("</s>", "<|eot_id|>", "<|im_end|>") if name in data.word_ids]
        )
        weights = torch.where(torch.isin(targets, ends), self.curriculum.end_weight, 1.0)
        return (losses * weights).sum() / weights.sum()

    def _save(self, workdir: Path, model: Any, tokenizer: Any, loss: float) -> None:
        data = SymbolicData(self.spec, tokenizer, self.templates, {family: 2 for family in self.rounds[-1].questions})
        write_json(workdir / LOOKUP_FILE, {"loss": loss, "accuracy": self._lookup(model, data)})
        model.save_pretrained(workdir)
        tokenizer.save_pretrained(workdir)
        for number in range(len(self.rounds)):
            (workdir / f"round_{number}.safetensors").unlink(missing_ok=True)
            shutil.rmtree(workdir / f"round_{number}", ignore_errors=True)

    def _lookup(self, model: Any, data: SymbolicData) -> dict[str, dict[str, float]]:
        """Percent of answers that greedy decoding gets right on held-out scenes: style -> family -> accuracy."""
        table = {}
        grid = self.rounds[-1].grids[0]
        for template in dict.fromkeys(self.curriculum.templates):
            for place in dict.fromkeys(self.curriculum.format_prompts):
                for multi in (False, True):
                    style = Style(template=template, format_prompt=place, multi_turn=multi, caption=False, grid=grid)
                    name = f"{template}, prompt {place}, {'multi' if multi else 'single'} turn"
                    table[name] = lookup_accuracy(model, data, style, self.check["scenes"], self.seed)
        return table


@torch.no_grad()
def look_at_the_token_before(model: Any, logit: float) -> None:
    """Set the first head of a Llama's first block: query and key are one direction, the key turned by one position.

    The direction is read from the first channel, which all words get alike; a tied head's logits do not depend on it.
    """
    embedding, attention, config = model.get_input_embeddings(), model.model.layers[0].self_attn, model.config
    embedding.weight[:, 0] = COMMON
    size = config.hidden_size // config.num_attention_heads
    turns = config.rope_parameters["rope_theta"] ** (-torch.arange(FASTEST) * 2 / size)
    # cos(turn) of each pair is lost at the token itself; a score is the sum of pairs / sqrt(size).
    scale = (logit * size**0.5 / float((1 - turns.cos()).sum())) ** 0.5 / COMMON
    query, key = torch.zeros(size), torch.zeros(size)
    query[:FASTEST] = scale
    key[:FASTEST], key[size // 2 : size // 2 + FASTEST] = scale * turns.cos(), scale * turns.sin()
    for projection, direction in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[:size] = 0
        projection.weight[:size, 0] = direction


def trained_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The state without the head, which is the embedding itself."""
    return {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def answers(
    model: Any, symbolic: SymbolicBatch, corruption: Corruption | None, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (A, V), targets (A,) and stretch number (A,), ``row * T + number``, of all trained positions."""
    batch = symbolic.batch
    embedding = model.get_input_embeddings().weight
    place = batch.input_ids == IMAGE_TOKEN_ID
    visual = soft_tokens(symbolic.scenes, embedding, corruption, random)
    embeds = embedding[batch.input_ids.masked_fill(place, 0)].masked_scatter(place[..., None], visual)
    mask = additive_mask(allowed(batch.segment_ids, batch.prefix_ids, batch.segment_ids), embeds.dtype)
    targets = batch.labels[:, 1:]
    columns = (targets != IGNORE_INDEX).any(dim=0).nonzero()[:, 0]
    output = model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=columns,
    )
    stretches = trained_stretches(batch.labels)[:, 1:][:, columns]
    rows = torch.arange(len(targets))[:, None] * batch.labels.shape[1]
    valid = targets[:, columns] != IGNORE_INDEX
    return output.logits[valid], targets[:, columns][valid], (stretches + rows)[valid]


@torch.no_grad()
def lookup_accuracy(model: Any, data: SymbolicData, style: Style, scenes: int, seed: int) -> dict[str, float]:
    """Family -> percent of answers with every token right, on ideal soft tokens of held-out scenes."""
    symbolic = data.batch(Rng(seed, 32), scenes, style, held_out=True)
    logits, targets, stretches = answers(model, symbolic, None, torch.Generator())
    wrong = set(stretches[logits.argmax(-1) != targets].tolist())
    width = symbolic.batch.labels.shape[1]
    hits: dict[str, list[bool]] = {}
    for row, families in enumerate(symbolic.families):
        for number, family in enumerate(families):
            hits.setdefault(family, []).append(row * width + number not in wrong)
    return {family: round(100 * sum(hit) / len(hit), 1) for family, hit in sorted(hits.items())}
