"""The loss in chunks of the positions that predict a trained token."""
