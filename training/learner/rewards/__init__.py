"""Reward terms and text metrics."""
