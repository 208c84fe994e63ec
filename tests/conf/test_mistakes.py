"""Every typo is one line that names the key and what would be right."""

import pytest

from mmexp.config import Composer, compose
from mmexp.errors import UserError

SCALE = "paper"


@pytest.fixture(scope="module")
def composer():
    with Composer(SCALE).open() as opened:
        yield opened


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["projectr=linear"], "projectr: no such key; did you mean 'projector'?"),
        (["projector=liner"], "projector=liner: no such option at scale paper; did you mean 'linear'?"),
        (["experimnts=llava15"], "experimnts: no such key; did you mean 'experiments'?"),
        (["experiments=lava15"], "experiments=lava15: no such option at scale paper; did you mean 'llava15'?"),
        (["sweeps=quickstrt"], "did you mean 'quickstart'?"),
        (["sweeps=llava15/conector"], "sweeps=llava15/conector: .*did you mean 'llava15/connector'?"),
        (["+sweep=quickstart"], "a sweep is chosen with sweeps=quickstart"),
        (["sweep=quickstart"], "a sweep is chosen with sweeps=quickstart"),
        (["+experiment=llava15"], "experiment: no such key; did you mean 'experiments'?"),
        (["+sweeps=quickstart"], r"\+sweeps: exists already; leave out the '\+'"),
        (["encoder=[clip,convnxt]"], "encoder=convnxt: .*did you mean 'convnext'?"),
        (["projector.depht=3"], "projector.depht: no such key; did you mean 'depth'?"),
        (["projector=linear", "projector.depth=3"], "projector.depth: no such key"),
        (["trainer.finetune.lrr=3"], "trainer.finetune.lrr: no such key; did you mean 'lr'?"),
        (["trainr.finetune.lr=3"], "trainr.finetune.lr: no such key; 'trainr': did you mean 'trainer'?"),
        (["model.encoders.sam.image_size=3"], "no such key; 'sam': choose from: clip"),
        (["+model.encoders.sam.image_size=3"], "model.encoders.sam: has no _target_, so no encoder of that name"),
        (["+projector.depth=2"], r"\+projector.depth: exists already"),
        (["~projctor"], "~projctor: no such key; did you mean 'projector'?"),
        (["template@x=plain"], "template@x: not a valid place for a group"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: .*choose from: inline, local"),
        (["hydra/sweeper=basic"], "hydra/sweeper=basic: sweep.search._target_ says what kind of sweep it is"),
        (["hydra.launcher.n_job=3"], "hydra.launcher.n_job: no such key; did you mean 'n_jobs'?"),
        (["seed=1,2"], "seed=1,2: several values need -m"),
        (["seed=x"], "seed: 'x' must be an integer"),
        (["seed=???"], "seed: has no value"),
        (["seed=[1"], r"'seed=\[1' is not a valid override"),
        (["seed"], "'seed' is not a valid override"),
        (["=3"], "'=3' is not a valid override"),
        (["seed=${sed}"], "seed: refers to 'sed', which does not exist"),
        (["seed=${oc.env:MMEXP_NOT_THERE}"], "seed: Environment variable 'MMEXP_NOT_THERE' not found"),
        (["trainer=${x}"], "trainer=.*is not a group"),
    ],
)
def test_one_line_for_each_mistake(composer, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        composer.compose(overrides).resolved()
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_told_by_the_first(composer):
    with pytest.raises(UserError, match="no such"):
        composer.compose(["projectr=linear", "fusio=none"])


def test_a_broken_yaml_names_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text("# @package _global_\nseed: [1\n")
    with pytest.raises(UserError, match=r"not YAML: .*experiments/mine.yaml"):
        compose(SCALE, ["experiments=mine"])


def test_an_unknown_key_in_a_users_file_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text("# @package _global_\ntemplat: {}\n")
    with pytest.raises(UserError, match="templat: no such key; did you mean 'template'"):
        compose(SCALE, ["experiments=mine"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "trainer: {finetune: {shedule: {steps: 3}}}",
            "trainer.finetune.shedule: no such key; did you mean 'schedule'",
        ),
        ("template: {format_promt: none}", "template.format_promt: no such key; did you mean 'format_prompt'"),
        ("projector: {depth: 3, widht: 4}", "projector.widht: no such key"),
        ("defaults: [{override /projector: linear}]\nprojector: {depth: 3}", "projector.depth: no such key"),
    ],
)
@pytest.mark.parametrize("group", ["experiments", "sweeps"])
def test_a_key_that_only_a_body_knows_is_found(tmp_path, monkeypatch, group, body, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(f"# @package _global_\n{body}\n")
    with pytest.raises(UserError, match=message):
        compose(SCALE, [f"{group}=mine"])


def test_a_body_may_set_what_it_chooses_and_add_names_where_names_are_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    body = """\
# @package _global_
defaults:
  - llava15
  - override /projector: resampler
projector: {num_tokens: 9}
aggregates: {mine: {metrics: {gqa: 1}}}
sizes: {mine: 3}
trainer: {finetune: {schedule: {clip_norm: 2.0}}}
"""
    (tmp_path / "experiments" / "mine.yaml").write_text(body)
    config = compose(SCALE, ["experiments=mine"])
    assert config.projector.num_tokens == 9 and config.aggregates.mine and config.sizes.mine == 3


def test_unknown_scale():
    with pytest.raises(UserError, match="did you mean 'paper'"):
        compose("papr")
