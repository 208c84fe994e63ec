"""What the feature cache saves: a lab sweep over layers and connectors, with the cache and without, in one process.

Trains the finetune stage of each row twice (the encoder is frozen), in turns; prints the time of both and their ratio,
how often the encoder saw an image, and the disk used.

    python benchmarks/feature_cache.py [--steps 40] [overrides ...]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from mmexp.config import Composer
from mmexp.encoder.block_encoder import BlockEncoder
from mmexp.planning.taps import share_taps
from mmexp.recipe.graph import build_graph
from mmexp.recipe.run import build_stage, run_stage
from mmexp.recipe.store import Store

ROWS = [
    [f"projector={projector}", f"feature_layers={layers}"]
    for projector in ("linear", "mlp2x_gelu")
    for layers in ("last", "penultimate")
]


class Seen:
    """Counts the images that go through any encoder."""

    def __init__(self) -> None:
        self.images = 0
        forward = BlockEncoder.forward

        def counted(encoder: BlockEncoder, pixels: Any, *arguments: Any) -> Any:
            self.images += len(pixels)
            return forward(encoder, pixels, *arguments)

        BlockEncoder.forward = counted  # type: ignore[method-assign]


def train(config: dict[str, Any], store: Store, runtime: dict[str, Any], cache: Path | None) -> float:
    """Seconds of the finetune stage of one row."""
    graph = build_graph(config, "finetune")
    for name, spec in graph.stages.items():
        if name != "finetune":
            run_stage(spec, store, None)
    spec = graph.stages["finetune"]
    stage = build_stage(spec, store)
    settings = {**spec.runtime, **runtime, "feature_cache": cache is not None, "cache_dir": str(cache)}
    with tempfile.TemporaryDirectory() as workdir:
        started = time.perf_counter()
        stage.run(Path(workdir), settings)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    given = [f"trainer.finetune.schedule.steps={arguments.steps}", "trainer.align.schedule.steps=2"]
    with Composer("lab").open() as composer:
        configs = [composer.compose([*row, *given, *arguments.overrides]).resolved() for row in ROWS]
    runtimes: list[dict[str, Any]] = [{} for _ in configs]
    share_taps(configs, [[runtime] for runtime in runtimes])
    store = Store.from_config(configs[0])
    seen, seconds, images = Seen(), {"with": 0.0, "without": 0.0}, {"with": 0, "without": 0}
    with tempfile.TemporaryDirectory() as folder:
        for config, runtime in zip(configs, runtimes, strict=True):
            train({**config}, store, {**runtime, "cache_dir": folder}, None)  # parents made, code warm
            for kind, cache in (("with", Path(folder)), ("without", None)):
                before = seen.images
                seconds[kind] += train(config, store, runtime, cache)
                images[kind] += seen.images - before
        used = sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))
    for kind in seconds:
        print(f"{kind:8} cache: {seconds[kind]:6.1f} s for {len(ROWS)} rows, {images[kind]} images through the encoder")
    print(f"ratio {seconds['with'] / seconds['without']:.2f}; disk {used / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
