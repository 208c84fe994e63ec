"""Sweeps: a table of trials, run as frozen stages by a launcher, remembered in a ledger."""
