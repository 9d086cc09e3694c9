"""Edits of pictures by trained models: what should change, and what must not. One file a method."""
