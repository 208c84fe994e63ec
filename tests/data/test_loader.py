"""The loader: the same data whatever the workers and portions, from any step; bad samples are dealt with openly."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mmexp.data.bad_samples import BadSample, BadSampleBudget
from mmexp.data.balance import BySize
from mmexp.data.build import ModelFacts, build_batching, build_windows
from mmexp.data.grouping import STRETCH_BATCHES, ModalityOrder, deal
from mmexp.data.loader import Shard, TrainLoader, WindowMaker
from mmexp.errors import UserError
from mmexp.interfaces import IGNORE_INDEX, IMAGE_TOKEN_ID, Batch
from mmexp.model.resolution.resize import Resize
from tests.data import tokenizers
from tests.data.making import CONF, NUM_VISUAL, llava_record, write_dataset

NUMBER = 12


def template_node(name: str) -> dict:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base=None):
        return OmegaConf.to_container(compose(f"template/{name}").template, resolve=True)


def data_node(
    path: Path, turns: str = "SingleTurn", balance: str = "BySize", use_images: bool = True, **changes
) -> dict:
    batching = {
        "batch_size": 4,
        "packing": "shared_prefix",
        "row_length": None,
        "max_length": 256,
        "group_by_modality_length": False,
        "max_bad_samples": 0,
    }
    source = {
        "_target_": "mmexp.data.sources.llava_json.LlavaJson",
        "annotations": str(path),
        "image_folder": str(path.parent / "images"),
    }
    return {
        "datasets": {"mix": source},
        "template": template_node("vicuna_v1"),
        "turns": {"_target_": f"mmexp.data.turns.{turns}"},
        "balance": {"_target_": f"mmexp.data.balance.{balance}"},
        "batching": {**batching, **changes},
        "use_images": use_images,
    }


def windows(
    node: dict, micro: int = 4, rank: int = 0, world: int = 1, cache_bytes: int = 10**7, features=None, seed: int = 0
) -> WindowMaker:
    facts = ModelFacts(
        tokenizer=tokenizers.llama(legacy=True),
        resolutions={name: Resize(image_size=side, mean=(0.5, 0.5, 0.5)) for name, side in (("clip", 8), ("sam", 16))},
        num_visual_tokens=lambda size: NUM_VISUAL,
        features=features,
    )
    shard = Shard(rank=rank, world_size=world, micro_batch_size=micro)
    return build_windows(node, seed=seed, facts=facts, shard=shard, cache_bytes=cache_bytes)


def loader(
    made: WindowMaker, steps: int = 6, start: int = 0, workers: int = 0, report: Path | None = None
) -> TrainLoader:
    budget = BadSampleBudget(limit=made.batching.max_bad_samples, num_samples=len(made.reader.mixture), report=report)
    return TrainLoader(
        windows=made, steps=steps, start_step=start, num_workers=workers, pin_memory=False, budget=budget
    )


def equal(one: Batch, other: Batch) -> bool:
    names = ("input_ids", "labels", "position_ids", "segment_ids", "prefix_ids")
    if not all(torch.equal(getattr(one, name), getattr(other, name)) for name in names):
        return False
    if one.images is None or other.images is None:
        return one.images is other.images
    return all(torch.equal(one.images.views[name], other.images.views[name]) for name in one.images.views)


def answers(batches: list[Batch]) -> list[str]:
    """The answers of a window, which name the record, row by row."""
    found = []
    for batch in batches:
        for row in batch.labels:
            text = tokenizers.llama(legacy=True).decode(row[row != IGNORE_INDEX].tolist())
            found += [part.strip() for part in text.split("</s>") if part.strip()]
    return found


@pytest.fixture
def dataset(tmp_path) -> Path:
    return write_dataset(tmp_path, [llava_record(number) for number in range(NUMBER)])


def test_a_window_covers_the_global_batch_and_an_epoch_everything(dataset):
    steps = list(loader(windows(data_node(dataset), micro=3), steps=3))
    assert [[len(batch.input_ids) for batch in window] for window in steps] == [[3, 1]] * 3
    seen = Counter(answer for window in steps for answer in answers(window))
    assert seen == {str(number): 2 for number in range(NUMBER)}, "two questions each"


def test_images_are_those_of_the_text(dataset):
    for window in loader(windows(data_node(dataset))):
        for batch in window:
            colours = batch.images.views["clip"][:, 0, 0, 0].tolist()
            assert [str(colour) for colour in colours for _ in range(2)] == answers([batch])
            assert batch.images.views["sam"].shape == (4, 3, 16, 16)
            assert batch.images.sizes == [(8, 8)] * 4
            assert int((batch.input_ids == IMAGE_TOKEN_ID).sum()) == 4 * NUM_VISUAL


@pytest.mark.parametrize("packing", ["none", "sequence", "shared_prefix"])
@pytest.mark.parametrize("cache_bytes", [0, 2000, 10**7])
def test_workers_and_cache_change_nothing(dataset, packing, cache_bytes):
    node = data_node(dataset, packing=packing)
    one = list(loader(windows(node)))
    other = list(loader(windows(node, cache_bytes=cache_bytes), workers=2 if cache_bytes == 0 else 0))
    assert len(one) == len(other) == 6
    assert all(equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True))


def test_a_resumed_run_goes_on_where_it_stopped(dataset):
    whole = list(loader(windows(data_node(dataset)), steps=7))
    resumed = loader(windows(data_node(dataset)), steps=7, start=5)
    assert len(resumed) == 2
    assert [answers(window) for window in resumed] == [answers(window) for window in whole[5:]]


@pytest.mark.parametrize("grouped", [True, False])
def test_micro_batch_size_only_cuts(dataset, grouped):
    node = data_node(dataset, group_by_modality_length=grouped)
    for one, other in zip(loader(windows(node, micro=1)), loader(windows(node, micro=4)), strict=True):
        assert sorted(answers(one)) == sorted(answers(other))
        assert grouped or answers(one) == answers(other)


@pytest.mark.parametrize("grouped", [True, False])
def test_ranks_share_the_global_batch(dataset, grouped):
    node = data_node(dataset, group_by_modality_length=grouped)
    whole = [sorted(answers(window)) for window in loader(windows(node))]
    ranks = [loader(windows(node, micro=1, rank=rank, world=2)) for rank in range(2)]
    parts = [[answers(window) for window in part] for part in ranks]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(UserError, match=r"batching\.batch_size: 4 samples cannot be divided among 3"):
        windows(node, world=3)


def test_same_seed_same_data_for_other_settings(dataset):
    one = [sorted(answers(window)) for window in loader(windows(data_node(dataset, packing="none")))]
    other = [sorted(answers(window)) for window in loader(windows(data_node(dataset), micro=2))]
    assert one == other
    assert one != [sorted(answers(window)) for window in loader(windows(data_node(dataset), seed=1))]


def test_multi_turn_is_one_conversation(dataset):
    (batch,) = next(iter(loader(windows(data_node(dataset, turns="MultiTurn")))))
    assert batch.num_conversations == 4
    (batch,) = next(iter(loader(windows(data_node(dataset)))))
    assert batch.num_conversations == 8


def test_blind_training_never_opens_an_image(dataset):
    for path in (dataset.parent / "images").iterdir():
        path.write_bytes(b"broken")
    (batch,) = next(iter(loader(windows(data_node(dataset, use_images=False)))))
    assert batch.images is None
    assert not (batch.input_ids == IMAGE_TOKEN_ID).any()


# ------------------------------------------------------------------ bad samples


def broken(tmp_path: Path, **changes) -> dict:
    """Record 3 has a truncated image, 5 none, 7 is not a record, 9 is too long."""
    records = [llava_record(number) for number in range(NUMBER)]
    path = write_dataset(tmp_path, records)
    (tmp_path / "images" / "3.png").write_bytes((tmp_path / "images" / "3.png").read_bytes()[:50])
    (tmp_path / "images" / "5.png").unlink()
    records[9]["conversations"][0]["value"] = "<image>\n" + "red shape " * 300
    lines = [json.dumps(record) for record in records]
    lines[7] = lines[7][:40]
    path.write_text("\n".join(lines))
    return data_node(path, **changes)


REASONS = {4: "3.png' cannot be read", 6: "5.png': no such file", 8: "not valid JSON", 10: "are more than batching"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("budget", [4, 0.34])
def test_bad_samples_within_the_budget_are_replaced_and_listed(tmp_path, workers, budget):
    node = broken(tmp_path, max_bad_samples=budget)
    report = tmp_path / "skipped.jsonl"
    steps = list(loader(windows(node), workers=workers, report=report))
    assert all(len(window[0].input_ids) == 4 for window in steps)
    assert not {"3", "5", "7", "9"} & {answer for window in steps for answer in answers(window)}
    listed = {
        json.loads(line)["origin"].rpartition(":")[2]: json.loads(line) for line in report.read_text().splitlines()
    }
    assert len(listed) == len(report.read_text().splitlines()) == 4, "each once, over two epochs"
    for line, reason in REASONS.items():
        assert reason in listed[str(line)]["reason"]


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_budget_the_first_bad_sample_ends_training(tmp_path, workers):
    with pytest.raises(UserError, match=r"data\.jsonl:(4|6|8|10): .*max_bad_samples") as raised:
        list(loader(windows(broken(tmp_path)), workers=workers, report=tmp_path / "skipped.jsonl"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "skipped.jsonl").exists()


def test_one_bad_sample_too_many(tmp_path):
    with pytest.raises(UserError, match=r"more than batching\.max_bad_samples = 3.*skipped\.jsonl.*first one beyond"):
        list(loader(windows(broken(tmp_path, max_bad_samples=3)), report=tmp_path / "skipped.jsonl"))
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 3


def test_the_budget_goes_on_after_a_restart(tmp_path):
    node, report = broken(tmp_path, max_bad_samples=4), tmp_path / "skipped.jsonl"
    list(loader(windows(node), report=report))
    list(loader(windows(node), report=report))
    assert len(report.read_text().splitlines()) == 4
    node["batching"]["max_bad_samples"] = 3
    list(loader(windows(node), report=report))  # all known: none is new


def test_a_line_that_a_killed_run_did_not_finish(tmp_path):
    report = tmp_path / "skipped.jsonl"
    report.write_text('{"origin": "a:1", "reason": "x"}\n{"origin": "b:')
    budget = BadSampleBudget(limit=2, num_samples=9, report=report)
    budget.spend([BadSample("a:1", "x"), BadSample("b:2", "y")])
    assert BadSampleBudget(limit=2, num_samples=9, report=report).origins == {"a:1", "b:2"}
    with pytest.raises(UserError, match="c:3: z"):
        budget.spend([BadSample("c:3", "z")])


@pytest.mark.parametrize("workers", [0, 2])
def test_only_bad_samples(tmp_path, workers):
    path = write_dataset(tmp_path, [llava_record(number) for number in range(3)])
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="dataset 'mix': all 101 samples drawn at random are bad"):
        list(loader(windows(data_node(path, max_bad_samples=1000)), workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_context_too_short_is_not_skipped(dataset, workers):
    node = data_node(dataset, max_length=NUM_VISUAL, max_bad_samples=1000)
    with pytest.raises(UserError, match=r"^batching\.max_length: 4 positions cannot hold the 4 visual tokens"):
        list(loader(windows(node), workers=workers))


# ------------------------------------------------------------------ stored features


class Stored:
    """Features that are the mean of the view, for ``clip`` only; ``known`` says which colours are stored."""

    def __init__(self, known: set[int]) -> None:
        self.known = known

    def lookup(self, name: str, view: np.ndarray) -> dict[int, np.ndarray] | None:
        colour = int(view[0, 0, 0])
        return {2: np.full((3, 5), colour, dtype=np.float32)} if name == "clip" and colour in self.known else None


def test_stored_features_replace_views(dataset):
    for window in loader(windows(data_node(dataset), features=Stored(set(range(NUMBER))))):
        images = window[0].images
        assert set(images.views) == {"sam"}
        assert images.features["clip"][2][:, 0, 0].tolist() == images.views["sam"][:, 0, 0, 0].tolist()


def test_partly_stored_features_are_not_mixed_with_views(dataset):
    kinds = set()
    for window in loader(windows(data_node(dataset), micro=1, features=Stored({0, 1, 2, 3}))):
        for batch in window:
            stored = int(batch.images.views["sam"][0, 0, 0, 0]) < 4
            assert ("clip" in batch.images.features) == stored
            assert ("clip" in batch.images.views) != stored
            kinds.add(stored)
    assert kinds == {True, False}


def test_features_stored_after_the_views_were_listed_are_found(dataset):
    features = Stored(set())
    made = windows(data_node(dataset), features=features)
    views = list(made.views("clip", steps=6))
    assert sorted(int(view[0, 0, 0]) for view in views) == list(range(NUMBER)), "each image once"
    assert views[0].shape == (3, 8, 8)
    features.known = set(range(NUMBER))
    assert all("clip" in window[0].images.features for window in loader(made))


def test_every_tensor_is_pinned(dataset, monkeypatch):
    pinned = set()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.add(id(tensor)) or tensor)
    made = windows(data_node(dataset), features=Stored(set(range(NUMBER))))
    (batch,) = made[0].pin_memory().batches
    names = ("input_ids", "labels", "position_ids", "segment_ids", "prefix_ids")
    tensors = [*(getattr(batch, name) for name in names), batch.images.views["sam"], batch.images.features["clip"][2]]
    assert {id(tensor) for tensor in tensors} == pinned


# ------------------------------------------------------------------ modality and length


def mixed(tmp_path: Path, text: int = 5) -> Path:
    records = [llava_record(number, questions=1 + number % 7, image=number % 3 != 0) for number in range(30 * text)]
    return write_dataset(tmp_path, records)


def test_grouped_batches_have_one_modality_and_like_lengths(tmp_path):
    path = mixed(tmp_path)
    node = data_node(path, turns="MultiTurn", packing="none", group_by_modality_length=True, batch_size=16)
    plain = {**node, "batching": {**node["batching"], "group_by_modality_length": False}}
    steps = list(loader(windows(node, micro=4), steps=STRETCH_BATCHES))
    kinds = Counter(len({batch.images is None for batch in window}) for window in steps)
    assert kinds[1] >= STRETCH_BATCHES - 1
    assert {window[0].images is None for window in steps} == {True, False}
    ungrouped = list(loader(windows(plain, micro=4), steps=STRETCH_BATCHES))
    assert Counter(a for w in steps for a in answers(w)) == Counter(a for w in ungrouped for a in answers(w))


def test_deal_evens_out_the_totals():
    lengths = np.random.default_rng(0).integers(20, 2000, 64).tolist()
    hands = deal(lengths, [16] * 4)
    assert sorted(number for hand in hands for number in hand) == list(range(64))
    assert [len(hand) for hand in hands] == [16] * 4
    totals = [sum(lengths[number] for number in hand) for hand in hands]
    assert max(totals) - min(totals) < 0.02 * sum(totals)
    assert deal([1, 2, 3], [2, 1]) == [[2, 0], [1]]


def test_modality_order_is_a_permutation_of_each_stretch():
    order = ModalityOrder(has_image=lambda positions: positions % 3 > 0, batch_size=10, seed=0)
    size = 10 * STRETCH_BATCHES
    for stretch in (0, 2):
        steps = range(stretch * STRETCH_BATCHES, (stretch + 1) * STRETCH_BATCHES)
        batches = [order.batch(step) for step in steps]
        assert sorted(np.concatenate(batches).tolist()) == list(range(stretch * size, (stretch + 1) * size))
        assert sum(len(set((batch % 3 > 0).tolist())) > 1 for batch in batches) <= 1
    again = ModalityOrder(has_image=lambda positions: positions % 3 > 0, batch_size=10, seed=0)
    assert again.batch(5).tolist() == order.batch(5).tolist()


def test_modality_grouping_works_around_bad_records(tmp_path):
    node = broken(tmp_path, max_bad_samples=4, group_by_modality_length=True)
    steps = list(loader(windows(node, micro=2, rank=1, world=2), steps=10))
    assert all(len(answers(window)) == 4 for window in steps)


# ------------------------------------------------------------------ config


def test_misspelt_or_missing_settings():
    with pytest.raises(UserError, match=r"batching\.packingg: no such setting; did you mean 'packing'"):
        build_batching({"packingg": "none"})
    with pytest.raises(UserError, match=r"batching\.batch_size: is missing"):
        build_batching({"packing": "none"})


def test_balance_configs_name_their_classes():
    import yaml

    targets = {path.stem: yaml.safe_load(path.read_text())["_target_"] for path in (CONF / "balance").glob("*.yaml")}
    assert targets["by_size"] == f"{BySize.__module__}.BySize"
    assert targets["per_dataset"] == f"{BySize.__module__}.PerDataset"
    turns = {path.stem: yaml.safe_load(path.read_text()).get("_target_") for path in (CONF / "turns").glob("*.yaml")}
    assert turns["single"] == "mmexp.data.turns.SingleTurn"
    assert turns["multi"] == "mmexp.data.turns.MultiTurn"
