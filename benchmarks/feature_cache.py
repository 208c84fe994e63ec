"""What the feature cache saves: a whole lab sweep over layers, with the cache and without, in one process.

Every row is trained and evaluated twice (its encoder is frozen), first with the cache. Prints, for both, the time, how
often an encoder saw an image and how long that took; then the disk used against the bound of papers/dense_connector.md,
section 5: the union of the maps that the rows need, instead of all depths. The lab's own stages are not measured.

    python benchmarks/feature_cache.py [--sweep dense_connector/layers] [--rows a,b] [--steps 40] [overrides ...]
"""

import argparse
import hashlib
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmexp.config import Composer
from mmexp.model.encoder.block_encoder import BlockEncoder, depths_of
from mmexp.planning.meta import meta_model
from mmexp.planning.taps import share_taps
from mmexp.stages.graph import build_graph
from mmexp.stages.run import run_stage
from mmexp.stages.store import Store


@dataclass
class Work:
    """What the rows cost in all."""

    seconds: float = 0.0
    encoder_seconds: float = 0.0
    images: int = 0
    distinct: set[bytes] = field(default_factory=set)


class Watch:
    """Counts and times what goes through any encoder."""

    def __init__(self) -> None:
        self.work = Work()
        forward = BlockEncoder.forward

        def watched(encoder: BlockEncoder, pixels: Any, *arguments: Any) -> Any:
            started = time.perf_counter()
            out = forward(encoder, pixels, *arguments)
            self.work.encoder_seconds += time.perf_counter() - started
            self.work.images += len(pixels)
            self.work.distinct |= {hashlib.blake2b(view.numpy().tobytes()).digest() for view in pixels}
            return out

        BlockEncoder.forward = watched  # type: ignore[method-assign]


def rows_of(sweep: str, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Resolved config of each row, first seed."""
    with Composer("lab").open() as composer:
        table: Any = composer.compose([f"sweeps={sweep}", *overrides]).resolved()["sweep"]["rows"]
        return {
            name: composer.compose([f"sweeps={sweep}", *(row.get("overrides") or []), *overrides]).resolved()
            for name, row in table.items()
        }


def run_rows(configs: list[dict[str, Any]], runtime: dict[str, Any], folder: Path, watch: Watch) -> Work:
    """Train and evaluate all rows in a store of their own, which takes the lab's stages from the usual one."""
    usual = Store.from_config(configs[0])
    store = Store(folder / "store", folder / "runs", [*usual.shipped, usual.stages])
    watch.work = Work()
    for config in configs:
        graph = build_graph(config)
        for name, spec in graph.stages.items():
            if not spec.where.startswith("lab."):
                started = time.perf_counter()
                run_stage(replace(spec, runtime={**spec.runtime, **runtime}), store, None)
                print(f"    {name} {time.perf_counter() - started:.1f} s", flush=True)
                watch.work.seconds += time.perf_counter() - started
    return watch.work


def bound(config: dict[str, Any], taps: dict[str, list[Any]], images: int) -> tuple[int, int]:
    """Bytes of the maps that the rows need together, and of the maps at all depths, for so many images in float32."""
    needed = everything = 0
    for name, encoder in meta_model(config["evaluation"]["model"]).vision.encoders.items():
        shapes = [encoder.shape(tap) for tap in range(encoder.depth + 1)]
        sizes = [shape.num_tokens * shape.dim * 4 for shape in shapes]
        needed += sum(sizes[max(depths_of([tap]))] for tap in taps[name])
        everything += sum(sizes)
    return needed * images, everything * images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", default="dense_connector/layers")
    parser.add_argument("--rows", help="only these, separated by commas")
    parser.add_argument("--steps", type=int, default=40, help="of align and of finetune")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    steps = [f"trainer.{stage}.schedule.steps={arguments.steps}" for stage in ("align", "finetune")]
    rows = rows_of(arguments.sweep, [*steps, "logger=none", *arguments.overrides])
    if arguments.rows:
        rows = {name: rows[name] for name in arguments.rows.split(",")}
    configs = list(rows.values())
    for name, spec in build_graph(configs[0]).stages.items():
        if spec.where.startswith("lab."):
            print(f"{name}: {run_stage(spec, Store.from_config(configs[0]), None)}", flush=True)
    runtimes: list[dict[str, Any]] = [{} for _ in configs]
    share_taps(configs, [[runtime] for runtime in runtimes])
    taps = runtimes[0]["feature_taps"]
    watch, work = Watch(), {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("with", "without"):
            print(f"{kind} cache", flush=True)
            runtime = {"feature_cache": kind == "with", "cache_dir": f"{folder}/cache", "feature_taps": taps}
            work[kind] = run_rows(configs, runtime, Path(folder) / kind, watch)
        used = sum(path.stat().st_size for path in Path(folder, "cache").rglob("*.npy"))
    for kind, part in work.items():
        print(
            f"{kind:8} cache: {part.seconds:6.1f} s for {len(rows)} rows; the encoder saw {part.images} images "
            f"({len(part.distinct)} different ones) in {part.encoder_seconds:.1f} s"
        )
    saved, plain = work["with"], work["without"]
    least, all_depths = bound(configs[0], taps, len(saved.distinct))
    print(
        f"ratio {saved.seconds / plain.seconds:.2f} of the time, {saved.images / plain.images:.3f} of the images, "
        f"{saved.encoder_seconds / plain.encoder_seconds:.3f} of the encoder's time"
    )
    print(
        f"disk {used / 1e6:.1f} MB; bound {least / 1e6:.1f} MB ({sum(map(len, taps.values()))} maps an image), all "
        f"depths {all_depths / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
