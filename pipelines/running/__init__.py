"""The runner of a step, the launches of a plan, and what is around them."""
