"""Tests against peers that are not ours, and of verification."""
