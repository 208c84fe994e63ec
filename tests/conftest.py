"""Every test: one thread per process, no telemetry, and no settings of the machine that runs it."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_ERROR_REPORTING"] = "false"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("MMEXP_OUT", "MMEXP_DATA", "WANDB_API_KEY", "WANDB_MODE"):
    os.environ.pop(name, None)
