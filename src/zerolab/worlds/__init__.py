"""Synthetic worlds: corpora, base models and toy policies whose truth is known by construction."""
