"""Between two parties, on chain: statements attested, disputes opened, answered and closed (design section 4)."""
