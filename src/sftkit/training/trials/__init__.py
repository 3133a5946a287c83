"""Try out how a model treats several sequences at once, and correct what depends on their neighbors."""
