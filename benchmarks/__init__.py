"""Speed and memory of sftkit, compared with peers and floors: `python -m benchmarks.run`. See docs/performance.md."""
