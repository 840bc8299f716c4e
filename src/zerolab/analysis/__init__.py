"""The study of base models: docs/analysis.md."""
