"""What `python -m experiments.bench_compressors` is made of."""
