"""`python -m sftkit`, so that `accelerate launch -m sftkit train ...` works."""

from sftkit.cli import main

if __name__ == "__main__":
    main()
