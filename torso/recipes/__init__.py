"""Recipes: named systems as text, and what turns them into a run."""
