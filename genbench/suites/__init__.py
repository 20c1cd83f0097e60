"""Suites: many models, data sets and seeds, trained and measured by one command. Needs no torch."""
