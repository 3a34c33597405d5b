"""Figures of the book's own, which stand in no paper."""
