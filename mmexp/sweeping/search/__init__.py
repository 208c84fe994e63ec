"""Which trials come next: one class per kind of sweep."""
