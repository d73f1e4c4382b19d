"""Which scheme for which network: a cost model, what encoding costs here, and a ranking."""
