"""The lab: a drawn world with ground truth, its questions, its small experts and language model."""
