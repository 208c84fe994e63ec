"""Which depths of an encoder are used, and how several become one map."""
