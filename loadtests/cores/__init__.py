"""What the benchmarks of several processes, of many open streams and of memory share: upstream, router, traffic."""
