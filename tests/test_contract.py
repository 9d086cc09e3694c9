"""Every family keeps the contract: it trains, stops, goes on bit-exactly, and draws the same samples after a reload.

So does a toy that asks more of the contract than any family does yet: a frozen network beside the trained one, samples
drawn inside the training step, a condition that is a sequence, and noise of its own.
"""
