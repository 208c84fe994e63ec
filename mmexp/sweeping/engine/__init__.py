"""Which stage runs now; the ledger and the progress display."""
