"""From sources on disk to packed batches."""
