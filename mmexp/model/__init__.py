"""The composed multimodal LLM."""
