"""Recovery of a ring after a death; Python calls it through server._fast.ring."""
