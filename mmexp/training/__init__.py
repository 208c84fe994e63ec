"""Training of one stage with Lightning."""
