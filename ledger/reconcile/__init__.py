"""A source against its anchors: findings, counts that balance, a verdict."""
