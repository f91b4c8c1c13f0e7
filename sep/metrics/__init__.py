"""Scores of separated sounds: signal ratios, BSS Eval, meaning, and what a run's rows add up to."""
