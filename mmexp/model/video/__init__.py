"""Videos for a model that was trained on images: frames are views, and an aggregation makes few tokens of many."""
