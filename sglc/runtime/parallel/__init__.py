"""One model spread over several processes (tensor parallelism; Megatron-LM, Shoeybi et al. 2019).

Rank 0 is the engine's own process: it has the embedding, the LM head and the sampler, and decides
every step.  The other ranks are processes that hold their part of each layer, and do as told.
"""
