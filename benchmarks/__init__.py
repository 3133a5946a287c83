"""Speed and memory of sftkit, against peers and floors: `python -m benchmarks.run`. See docs/performance.md."""
