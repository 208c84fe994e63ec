"""Videos for a model that was trained on images: frames are views, and an aggregation reduces their tokens."""
