"""Which characters of a conversation carry a loss, and the labels that follow from them."""
