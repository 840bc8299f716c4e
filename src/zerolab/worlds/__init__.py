"""Synthetic corpora, base models and toy policies, with properties that are known by construction."""
