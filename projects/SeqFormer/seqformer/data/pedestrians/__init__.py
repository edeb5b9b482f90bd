"""Cutting people out of a fixed-camera video and composing training videos from them."""
