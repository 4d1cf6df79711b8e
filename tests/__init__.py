"""Tests mirror minilima/."""
