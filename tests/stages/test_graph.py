import copy
import json
from pathlib import Path

import pytest

from mmexp.errors import UserError
from mmexp.stages.graph import StageSpec, build_graph, stage_key
from mmexp.stages.version import version_of
from tests import fakes

ROOT = Path("/nowhere")


def changed(**changes):
    config = fakes.config(ROOT)
    for path, value in changes.items():
        node = config
        *parents, last = path.split("__")
        for part in parents:
            node = node[part]
        node[last] = value
    return build_graph(config)


def test_stages_come_after_what_they_refer_to():
    assert list(build_graph(fakes.config(ROOT)).stages) == ["base", "align", "finetune", "evaluate"]


def test_only_what_the_last_stage_needs_is_in_the_graph():
    config = fakes.config(ROOT)
    config["recipe"]["stages"]["other"] = copy.deepcopy(config["recipe"]["stages"]["align"])
    assert "other" not in build_graph(config).stages
    assert list(build_graph(config, "align").stages) == ["base", "align"]


def test_key_holds_what_a_stage_reads_and_nothing_else():
    before = build_graph(fakes.config(ROOT)).keys
    after = changed(recipe__stages__finetune__value=2).keys
    assert {name for name in before if before[name] != after[name]} == {"finetune", "evaluate"}
    assert changed(evaluation__runtime={"seconds": 9}).keys == before
    assert changed(paths={"store": "elsewhere"}).keys == before
    assert build_graph(fakes.config(ROOT, seed=1)).keys["base"] == before["base"]


def test_a_parent_reaches_the_key_wherever_its_reference_stands():
    before = changed(evaluation__parents=["stage:finetune/sub/a.txt"]).keys
    after = changed(evaluation__parents=["stage:finetune/sub/b.txt"]).keys
    assert before["evaluate"] != after["evaluate"]
    assert before["finetune"] == after["finetune"]


def test_order_of_keys_is_in_the_key():
    encoders = {"clip": {"a": 1}, "sam": {"a": 2}}
    turned = dict(reversed(encoders.items()))
    assert stage_key({"model": {"encoders": encoders}}, {}) != stage_key({"model": {"encoders": turned}}, {})


def test_a_key_is_the_same_after_a_round_trip_through_json():
    spec = build_graph(fakes.config(ROOT)).last
    again = StageSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.hashed == spec.hashed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation__parents": ["stage:finetun"]}, r"evaluation.parents\[0\].*'finetun'.*did you mean 'finetune'"),
        ({"lab__stages__base__parents": ["stage:align"]}, r"wait for each other: align -> base -> align"),
        ({"evaluation__parents": ["stage:fine tune"]}, r"'stage:fine tune' is not a reference"),
        ({"evaluation__parents": ["stage:align/../x"]}, r"is not a reference"),
        ({"lab__stages": {"align": {"_target_": "tests.fakes.Count"}}}, r"recipe.stages.align: another stage"),
        ({"recipe__stages__align": {"value": 1}}, r"recipe.stages.align: a stage needs a _target_"),
        ({"evaluation___target_": "tests.fakes.Scor"}, r"evaluation._target_.*did you mean 'Score'"),
        ({"evaluation___target_": "tests.fake.Score"}, r"no module 'tests.fake'"),
        ({"evaluation___target_": "mmexp.data.turns.SingleTurn"}, r"is not a stage"),
    ],
)
def test_mistakes_name_the_config_key(changes, message):
    with pytest.raises(UserError, match=message):
        changed(**changes)


def test_version_is_read_without_importing_the_module():
    import subprocess
    import sys

    code = (
        "import sys; from mmexp.stages.version import version_of as v\n"
        "print(v('mmexp.training.stage.TrainStage'), v('mmexp.evaluation.stage.EvaluateStage'), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    from mmexp.evaluation.stage import EvaluateStage
    from mmexp.training.stage import TrainStage

    assert out == [str(TrainStage.VERSION), str(EvaluateStage.VERSION), "False"]


def test_version_of_a_class_that_inherits_it():
    assert version_of("tests.fakes.Inherited") == fakes.Inherited.VERSION
    assert version_of("tests.fakes.Score") == 3
