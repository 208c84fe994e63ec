"""What every option of a kind keeps to: the shipped ones, and the example of docs/extend.md."""

import inspect
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmexp.config import config_root
from mmexp.errors import UserError
from mmexp.evaluation.metrics import HEADLINE, Answers, Metric, make_metric, recorded_metric
from mmexp.instantiate import instantiate
from mmexp.interfaces import (
    Converter,
    Decay,
    Encoder,
    FeatureLayers,
    FeatureMap,
    FeatureShape,
    Fusion,
    Importer,
    Projector,
    Resolution,
    Sample,
    Source,
    TokenReduction,
    Turn,
)
from mmexp.training.schedule import make_decay
from tests.doors.own import folder, own_node

GRID, DIM, OUT_DIM = (4, 4), 12, 20
FEATURES = FeatureShape(16, DIM, GRID)


def shipped(group: str) -> dict[str, dict[str, Any]]:
    """Option -> node, of a group whose files refer to nothing."""
    paths = sorted((config_root() / "conf" / group).glob("*.yaml"))
    assert paths
    nodes: Any = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in paths}
    return nodes


def metrics() -> dict[str, dict[str, Any]]:
    """Benchmark -> its node ``metric``, of both scales."""
    paths = sorted((config_root() / "conf" / "scale").glob("*/benchmark/*.yaml"))
    nodes: Any = {f"{path.parts[-3]}/{path.stem}": OmegaConf.load(path).get("metric") for path in paths}
    return {name: OmegaConf.to_container(node) for name, node in nodes.items() if node is not None}


METRICS, DECAYS, CONVERTERS, IMPORTERS = metrics(), shipped("decay"), shipped("converter"), shipped("importer")


def node_of(cases: dict[str, dict[str, Any]], name: str, group: str, option: str = "mine") -> dict[str, Any]:
    return own_node(group, option) if name == "own" else cases[name]


def features(views: int = 2) -> FeatureMap:
    return FeatureMap(torch.randn(views, FEATURES.num_tokens, DIM), GRID)


# ---------------------------------------------------------------- metrics

REFERENCES = (("yes",), ("A",), ("[0.1, 0.2, 0.6, 0.8]",), ("red",) * 10)
FAMILIES = ("", "existence", "Regular Text Recognition")
CHOICES = ((), ("cat", "dog"))


@pytest.mark.parametrize("name", [*METRICS, "own"])
def test_metric(name: str) -> None:
    node = METRICS[name] if name != "own" else own_node("benchmark", "first_word")["metric"]
    metric = make_metric(node)
    combinations = itertools.product(REFERENCES, FAMILIES, CHOICES)
    references, family, choices = next(row for row in combinations if metric.problem(*row) is None)
    assert 0 <= metric.score("", references, family, choices) <= 1
    assert metric.score(references[0], references, family, choices) == 1
    answers = asked(metric, references, family, choices, [references[0], "?", references[0], references[0]])
    weights = np.array([[1.0, 1, 1, 1], [2, 2, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]])
    values = metric.values(answers, weights)
    assert HEADLINE in values and all(value.shape == (4,) for value in values.values())
    headline = values[HEADLINE]
    assert headline[0] == pytest.approx(headline[1])  # weights count in proportion
    assert headline[2] >= headline[0]  # without the wrong answer
    assert recorded_metric({"metric": node}).variant == metric.variant  # a report scores with the same rule


def asked(metric: Metric, references: Any, family: str, choices: Any, predictions: list[str]) -> Answers:
    """Two images with two questions each, which share an id."""
    scores = [metric.score(prediction, references, family, choices) for prediction in predictions]
    return Answers(
        question_ids=["1", "1", "2", "2"],
        families=[family] * 4,
        images=["1.png", "1.png", "2.png", "2.png"],
        questions=["a", "b", "c", "d"],
        predictions=predictions,
        answers=[references[0]] * 4,
        scores=np.array(scores),
    )


def test_a_result_of_an_unknown_metric_is_not_scored_again() -> None:
    assert recorded_metric({"metric": {"_target_": "no_such_module.Rule", "variant": "x"}}) is None
    assert recorded_metric({"metric": "pope", "variant": "lmms_eval"}).variant == "lmms_eval"
    assert recorded_metric({"metric": "popee", "variant": "lmms_eval"}) is None
    assert recorded_metric({}) is None


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("name", [*DECAYS, "own"])
def test_decay(name: str) -> None:
    decay: Decay = make_decay(node_of(DECAYS, name, "decay"))
    factors = [decay.factor(step / 50) for step in range(51)]
    assert factors[0] == pytest.approx(1)
    assert all(0 <= after <= before + 1e-12 for before, after in itertools.pairwise(factors))


# ---------------------------------------------------------------- data


def source_nodes(root: Path) -> dict[str, dict[str, Any]]:
    """A source of each kind over one picture."""
    Image.new("RGB", (8, 8)).save(root / "a.png")
    (root / "chat.json").write_text(
        '[{"id": "1", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nred?"}, '
        '{"from": "gpt", "value": "yes"}]}]'
    )
    (root / "qa.jsonl").write_text('{"question_id": 1, "image": "a.png", "question": "red?", "answer": "yes"}\n')
    (root / "table.csv").write_text("image,question,answer\na.png,red?,yes\n")
    own = own_node("data")["finetune"]["datasets"]["table"]["_target_"]
    sources = "mmexp.data.sources"
    return {
        "llava_json": {"_target_": f"{sources}.llava_json.LlavaJson", "annotations": str(root / "chat.json")},
        "qa_jsonl": {
            "_target_": f"{sources}.qa_jsonl.QaJsonl",
            "annotations": str(root / "qa.jsonl"),
            "group_by_image": False,
        },
        "own": {"_target_": own, "annotations": str(root / "table.csv")},
    }


@pytest.mark.parametrize("name", ["llava_json", "qa_jsonl", "own"])
def test_source(name: str, tmp_path: Path) -> None:
    node = source_nodes(tmp_path)[name] | {"image_folder": str(tmp_path)}
    source: Source = instantiate(node, "data", expect=Source, name="colors")
    assert len(source) == 1
    sample = source[0]
    assert isinstance(sample, Sample)
    assert (sample.dataset, sample.image) == ("colors", tmp_path / "a.png")
    assert sample.turns[0].question.strip() == "red?" and sample.turns[0].answer == "yes"
    assert Path(node["annotations"]).name in sample.origin


def test_turns() -> None:
    turns = instantiate(own_node("turns"), "turns")
    exchanges = (Turn(question="a", answer="b"), Turn(question="c", answer="d"))
    parts = turns.split(exchanges, "any", np.random.default_rng(0))
    assert not turns.varies and all(turn in exchanges for part in parts for turn in part)


def test_balance() -> None:
    balance = instantiate(own_node("balance"), "balance")
    assert balance.needed(["a", "b"]) == ["a", "b"]
    assert balance.shares({"a": 100, "b": 400}) == pytest.approx({"a": 1 / 3, "b": 2 / 3})
    assert balance.order({"a": 100, "b": 400}, 0, {}).counts(300).sum() == 300


# ---------------------------------------------------------------- model


def test_resolution() -> None:
    part: Resolution = instantiate(
        own_node("resolution"), "resolution", expect=Resolution, image_size=32, mean=(0.5, 0.5, 0.5)
    )
    views = part.views(Image.new("L", (50, 20)))
    assert views.shape == (part.num_views((50, 20)), 3, 32, 32) and views.dtype == np.uint8
    assert part.num_tokens((50, 20), 16, GRID) == 16


def test_encoder() -> None:
    node = {key: value for key, value in own_node("encoder").items() if key not in ("resolution", "feature_layers")}
    encoder: Any = instantiate(node, "encoder", expect=(nn.Module, Encoder), load=False)
    side = node["image_size"]
    pixels = encoder.normalize(torch.zeros(2, 3, side, side, dtype=torch.uint8))
    for tap in range(encoder.depth + 1):
        [found] = encoder(pixels, [tap])
        assert found.tokens.shape[0] == 2 and found.shape == encoder.shape(tap)


def test_feature_layers() -> None:
    shapes = [FEATURES] * 5
    layers: Any = instantiate(
        own_node("feature_layers"), "layers", expect=(nn.Module, FeatureLayers), depth=4, shapes=shapes
    )
    assert all(0 <= tap <= 4 for tap in layers.taps)
    assert layers([features() for _ in layers.taps]).shape == layers.out_shape


def test_fusion() -> None:
    shapes = {"a": FEATURES, "b": FEATURES}
    fusion: Any = instantiate(
        own_node("fusion"),
        "fusion",
        expect=(nn.Module, Fusion),
        shapes=shapes,
        tap_shapes={name: [] for name in shapes},
    )
    out = fusion({name: [features()] for name in shapes})
    assert [part.shape for part in out] == fusion.streams
    assert sorted(fusion.run_order()) == ["a", "b"] and fusion.extra_taps() == {}


def test_projector() -> None:
    facts = {"in_dim": DIM, "in_tokens": FEATURES.num_tokens, "in_grid": GRID, "out_dim": OUT_DIM}
    with FakeTensorMode():
        instantiate(own_node("projector"), "projector", **facts)
    projector: Any = instantiate(own_node("projector"), "projector", expect=(nn.Module, Projector), **facts)
    out = projector(features())
    assert out.shape == FeatureShape(projector.num_tokens, OUT_DIM, projector.grid)
    out.tokens.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in projector.parameters())


def test_reduction() -> None:
    reduction: Any = instantiate(
        own_node("reduction"), "reduction", expect=(nn.Module, TokenReduction), in_tokens=16, in_grid=GRID
    )
    assert reduction(features()).shape == FeatureShape(reduction.num_tokens, DIM, reduction.grid)


def test_video() -> None:
    aggregation = instantiate(own_node("video"), "video")
    tokens = torch.randn(aggregation.frames, 6, DIM)
    [joined] = aggregation(tokens, None, [aggregation.frames], [(8, 8)])
    assert joined.shape == (aggregation.num_tokens(aggregation.frames, 6), DIM)


# ---------------------------------------------------------------- files of others


@pytest.mark.parametrize("name", [*CONVERTERS, "own"])
def test_converter(name: str, tmp_path: Path) -> None:
    node = node_of(CONVERTERS, name, "converter", "pets")
    converter: Converter = instantiate(node, "converter", expect=Converter)
    assert converter.needs.startswith("folder with ")
    with pytest.raises(UserError) as caught:
        list(converter.records(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    if name == "own":
        assert all({"question_id", "image"} <= set(record) for record in converter.records(folder() / "raw"))


@pytest.mark.parametrize("name", [*IMPORTERS, "own"])
def test_importer(name: str, tmp_path: Path) -> None:
    importer: Importer = instantiate(node_of(IMPORTERS, name, "importer", "llava"), "importer", expect=Importer)
    assert list(inspect.signature(importer.tensors).parameters) == ["checkpoint"]
    with pytest.raises(UserError, match=r"no \.safetensors or \.bin file there"):
        importer.tensors(tmp_path / "none")
