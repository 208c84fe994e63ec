"""Expected samples and epochs of each dataset, and what is said where the files are not there."""

from pathlib import Path

import pytest
from rich.console import Console

from mmexp.config import Composer
from mmexp.errors import UserError
from mmexp.planning.datasets import plan_datasets, print_all
from mmexp.planning.validate import validate
from tests.data.making import llava_record, write_dataset


@pytest.fixture(scope="module")
def paper():
    with Composer("paper").open() as composer:
        yield composer


def source(path: Path) -> str:
    target = "mmexp.data.sources.llava_json.LlavaJson"
    return f"{{_target_: {target}, annotations: {path}, image_folder: {path.parent / 'images'}}}"


def overrides(folder: Path) -> list[str]:
    """Datasets of 10 and 40 samples in two tasks."""
    small = write_dataset(folder / "small", [llava_record(number) for number in range(10)])
    large = write_dataset(folder / "large", [llava_record(number) for number in range(40)])
    return [
        f"+data.finetune.datasets.small={source(small)}",
        f"+data.finetune.datasets.large={source(large)}",
        "~data.finetune.datasets.mix_665k",
        "++data.finetune.tasks={small: a, large: b}",
        "+data.finetune.weights={small: 3, large: 1}",
        "trainer.finetune.schedule.steps=10",
        "trainer.finetune.batching.batch_size=20",
    ]


@pytest.mark.parametrize(
    ("balance", "small"), [("by_size", 40), ("per_dataset", 100), ("per_task", 100), ("tuned", 150)]
)
def test_samples_and_epochs(paper: Composer, tmp_path: Path, balance: str, small: float) -> None:
    config = paper.compose([*overrides(tmp_path), f"balance={balance}"]).resolved()
    stages = plan_datasets(config)
    assert stages["finetune"]["small"].samples == pytest.approx(small)
    assert stages["finetune"]["small"].epochs == pytest.approx(small / 10)
    assert stages["finetune"]["large"].epochs == pytest.approx((200 - small) / 40)
    console = Console(width=80, record=True, force_terminal=False)
    print_all({"one": config, "same": config}, console)
    text = console.export_text()
    assert "align: 1 of 1 datasets are not on disk (blip_558k)" in text
    assert "one, same" in text
    assert f"{small / 10:.2f}" in text


def test_a_balance_that_names_nothing_is_found_before_launch(paper: Composer, tmp_path: Path) -> None:
    changes = [*overrides(tmp_path), "balance=tuned", "balance.leave_out=[c]", "experiments=llava15"]
    with pytest.raises(UserError, match=r"balance\.leave_out: no dataset or task 'c'"):
        validate(paper.compose(changes).resolved())
