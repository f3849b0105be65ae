"""What runs: data sets, experiments, baselines and benchmarks."""
