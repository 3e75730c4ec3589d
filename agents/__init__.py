"""Agents that learn inside a dream: one runnable file each."""
