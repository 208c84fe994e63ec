"""Encoder features to visual tokens of the LLM's width."""
