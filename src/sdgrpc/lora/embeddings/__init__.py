"""Textual inversions: files that give words of prompts vectors of their own."""
