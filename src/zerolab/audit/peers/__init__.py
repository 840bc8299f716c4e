"""Losses that are not ours, each behind the same question: what coefficient does it give every token of a step?"""
