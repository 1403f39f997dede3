"""Figures as files and pages, and their comparison."""
