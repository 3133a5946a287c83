"""`python -m sftkit`, so that `accelerate launch -m sftkit train ...` works."""

from sftkit.cli.app import main

if __name__ == "__main__":
    main()
