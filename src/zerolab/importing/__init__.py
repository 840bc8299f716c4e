"""Recipes from the configuration files of other libraries."""
