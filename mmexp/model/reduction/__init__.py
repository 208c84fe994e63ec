"""Fewer visual tokens after the projector."""
