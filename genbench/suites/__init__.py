"""Suites: many models, data sets and seeds, trained and evaluated by one command. Needs no torch."""
