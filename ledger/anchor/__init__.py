"""Anchoring: claims, the outbox of signed transactions, and the order of effects that survives any interruption."""
