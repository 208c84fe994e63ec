"""The terminal stage of a trial: the trained model answers the benchmarks, the answers are scored and written."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmexp.errors import UserError
from mmexp.evaluation.benchmark import Benchmark, Question
from mmexp.evaluation.metrics import Answers
from mmexp.evaluation.result import aggregate, library_versions, missing_metrics, write_predictions, write_result
from mmexp.files import METRICS_FILE

IMAGES_MEASURED = 256
"""Images whose size is read to say how many visual tokens an image becomes."""


class EvaluateStage:
    """Answers every question of every benchmark greedily; writes ``predictions.parquet`` and ``result.json``.

    Args:
        model: config node of the composed model.
        init_from: folder of the stage whose weights are evaluated.
        benchmarks: name -> config node of a ``Benchmark``.
        aggregates: name -> ``{metrics: {metric: factor}}``.
        template: config node of the conversation template.
        use_images: False asks without the images (the blind baseline).
        seed: of torch; greedy decoding draws nothing.
        num_threads: of torch; None keeps torch's default.
        precision: ``fp32`` or ``bf16`` (autocast).
    """

    VERSION = 1

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        init_from: str | None,
        benchmarks: Mapping[str, Any],
        aggregates: Mapping[str, Any],
        template: Mapping[str, Any],
        use_images: bool,
        seed: int,
        num_threads: int | None,
        precision: str,
    ) -> None:
        if not benchmarks:
            raise UserError("benchmark: nothing to evaluate; choose at least one, for example benchmark=[core]")
        self.model, self.init_from, self.template = model, init_from, template
        self.benchmarks = {name: _benchmark(name, node) for name, node in benchmarks.items()}
        self.aggregates = aggregates
        self.use_images = use_images
        self.seed, self.num_threads, self.precision = seed, num_threads, precision

    def run(self, workdir: Path, runtime: Mapping[str, Any]) -> None:
        """Reads of ``runtime``: ``eval_batch_size``, ``accelerator``; all optional: what ``stored_features`` reads;
        ``trial_key``, ``stage_keys``, ``stage_seconds`` and ``config_choices`` for the result; for the display
        ``progress(done, total)``."""
        started = time.perf_counter()
        questions = {name: benchmark.questions() for name, benchmark in self.benchmarks.items()}
        model = self._model(runtime)
        asked = time.perf_counter()
        answers = self._answer(model, questions, runtime)
        ended = time.perf_counter()
        write_predictions(workdir, answers)
        asking = sum(len(part) for part in questions.values())
        costs = {
            "evaluation_seconds": ended - started,
            "seconds_per_question": (ended - asked) / asking,
            **_model_costs(
                model, questions, {name: part.aggregation for name, part in self.benchmarks.items()}, self.use_images
            ),
            "step_ms": step_ms(Path(self.init_from) / METRICS_FILE) if self.init_from else None,
        }
        write_result(workdir, self._result(answers, costs, runtime))

    def _model(self, runtime: Mapping[str, Any]) -> Any:
        import torch

        from mmexp.model.build import load_model

        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        torch.manual_seed(self.seed)
        return load_model(self.model, self.init_from).to(device_of(runtime)).eval()

    def _answer(
        self, model: Any, questions: Mapping[str, Sequence[Question]], runtime: Mapping[str, Any]
    ) -> dict[str, Answers]:
        import torch

        from mmexp.evaluation.features import stored_features
        from mmexp.evaluation.generation import generate_answers

        everything = [question for part in questions.values() for question in part]
        features = stored_features(model, self.init_from, runtime, everything) if self.use_images else None
        progress = _Progress(runtime.get("progress"), sum(len(part) for part in questions.values()))
        autocast = torch.autocast(device_of(runtime), torch.bfloat16) if self.precision == "bf16" else nullcontext()
        answers = {}
        with torch.inference_mode(), autocast:
            for name, benchmark in self.benchmarks.items():
                predictions = generate_answers(
                    model,
                    self.template,
                    questions[name],
                    use_images=self.use_images,
                    batch_size=int(runtime.get("eval_batch_size", 16)),
                    max_new_tokens=benchmark.max_new_tokens,
                    progress=progress,
                    aggregation=benchmark.aggregation,
                    features=features,
                )
                answers[name] = benchmark.answers(questions[name], predictions)
        return answers

    def _result(
        self, answers: Mapping[str, Answers], costs: dict[str, Any], runtime: Mapping[str, Any]
    ) -> dict[str, Any]:
        metrics: dict[str, float] = {}
        for name, benchmark in self.benchmarks.items():
            metrics |= benchmark.metrics(name, answers[name])
        stage_keys, stage_seconds = (dict(runtime.get(name) or {}) for name in ("stage_keys", "stage_seconds"))
        return {
            "trial_key": runtime.get("trial_key"),
            "metrics": metrics | aggregate(metrics, self.aggregates),
            "missing_aggregates": {
                name: missing for name, node in self.aggregates.items() if (missing := missing_metrics(metrics, node))
            },
            "costs": costs | self._seconds(costs["evaluation_seconds"], stage_keys, stage_seconds),
            "scoring": {
                "benchmarks": {name: {"metric": benchmark.metric_node} for name, benchmark in self.benchmarks.items()},
                "aggregates": {name: {"metrics": dict(node["metrics"])} for name, node in self.aggregates.items()},
            },
            "stage_keys": stage_keys,
            "versions": library_versions(),
            "config_choices": dict(runtime.get("config_choices") or {}),
        }

    def _seconds(
        self, evaluation: float, stage_keys: Mapping[str, str], stage_seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        """What this trial trained and evaluated; the lab's own stages (world, experts) are listed, not summed."""
        from mmexp.model.build import lineage

        folders = {folder.name for folder in lineage(Path(self.init_from))} if self.init_from else set()
        trained = [name for name, key in stage_keys.items() if key in folders]
        training = sum(stage_seconds.get(name, 0.0) for name in trained)
        return {
            "seconds": training + evaluation,
            "training_seconds": training,
            "trained_stages": trained,
            "stage_seconds": stage_seconds,
        }


def device_of(runtime: Mapping[str, Any]) -> str:
    """``cuda`` where ``runtime.accelerator`` allows it and there is one, else ``cpu``."""
    import torch

    return (
        "cuda" if runtime.get("accelerator", "cpu") in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
    )


def _benchmark(name: str, node: Mapping[str, Any]) -> Benchmark:
    from mmexp.instantiate import instantiate

    benchmark: Benchmark = instantiate(node, f"benchmarks.{name}", expect=Benchmark)
    return benchmark


def _model_costs(
    model: Any, questions: Mapping[str, Sequence[Question]], aggregations: Mapping[str, Any], use_images: bool
) -> dict[str, Any]:
    """Parameters by part, and visual tokens: their mean over (a part of) the benchmarks' images and videos."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_trainables():
        part = name.split(".")[0]
        if use_images or part == "llm":
            parts[part] = parts.get(part, 0) + parameter.numel()
    return {
        "parameters": sum(parts.values()),
        "parameters_by_part": parts,
        "projector_parameters": parts.get("projector", 0) if use_images else None,
        "visual_tokens": _visual_tokens(model, questions, aggregations) if use_images else 0,
    }


def _visual_tokens(model: Any, questions: Mapping[str, Sequence[Question]], aggregations: Mapping[str, Any]) -> float:
    """A video counts as one that has all the frames that are wanted of it."""
    from PIL import Image

    from mmexp.model.build import token_counter

    images = dict.fromkeys(q.image for part in questions.values() for q in part if q.image is not None)
    counter, counts = token_counter(model), []
    for path in list(images)[:IMAGES_MEASURED]:
        with Image.open(path) as image:
            counts.append(counter(image.size))
    for name, aggregation in aggregations.items():
        if aggregation is not None:
            videos = {question.video for question in questions[name]}
            counts += [aggregation.num_tokens(aggregation.frames, model.vision.tokens_per_view)] * len(videos)
    return sum(counts) / len(counts) if counts else 0


def step_ms(curves: Path) -> float | None:
    """Milliseconds of an optimiser step in the last stage: the median over the lines of its ``metrics.jsonl``.

    The median, since the first steps and those after a kill take longer. None where fewer than two lines are timed.
    """
    lines = [json.loads(line) for line in curves.read_text().splitlines()] if curves.is_file() else []
    timed = [(line["step"], line["seconds"]) for line in lines if "seconds" in line]
    rates = [
        (seconds - before) / (step - earlier)
        for (earlier, before), (step, seconds) in pairwise(timed)
        if step > earlier and seconds > before  # the clock restarts with a resumed stage
    ]
    return 1000 * statistics.median(rates) if rates else None


class _Progress:
    """Adds the benchmarks' own counts up: called with the number of questions just answered."""

    def __init__(self, report: Callable[[int, int], None] | None, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def __call__(self, more: int) -> None:
        self.done += more
        if self.report is not None:
            self.report(self.done, self.total)
